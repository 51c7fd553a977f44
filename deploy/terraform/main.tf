# Pub/Sub → function. Its schedule, bucket, identity and credentials stand in files of their own.

locals {
  name = "tap-forensics-collector"

  prefix        = trim(lookup(var.settings, "GCS_PREFIX", "tap-forensics"), "/")
  events_prefix = trim(lookup(var.settings, "EVENTS_PREFIX", ""), "/")
  # SecOps ingests whatever lies under a feed's prefix, and may delete it: the state lies under none.
  state_key = "state/${local.prefix}/state.json"

  environment = merge(var.settings, local.where_credentials_are, {
    GCS_BUCKET = google_storage_bucket.evidence.name
    GCS_PREFIX = local.prefix
    STATE_KEY  = local.state_key
    # Groups the log lines of one run; gcloud sets it by itself.
    LOG_EXECUTION_ID = "true"
  })

  # A second run of one tenant would find the first one's lease and end.
  instances = min(max(1, length(var.tenants)), var.max_instances)
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudscheduler.googleapis.com",
    "eventarc.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ])

  project = var.project
  service = each.value
  # Other things in the project may use them.
  disable_on_destroy = false
}

resource "google_pubsub_topic" "trigger" {
  #checkov:skip=CKV_GCP_83:A message is {}, or a tenant's name: nothing to keep secret.
  project = var.project
  name    = "${local.name}-trigger"

  depends_on = [google_project_service.needed]
}

# Where an event goes that failed again and again: the subscription keeps it to be looked at.
resource "google_pubsub_topic" "dead_letter" {
  #checkov:skip=CKV_GCP_83:A message is {}, or a tenant's name: nothing to keep secret.
  project = var.project
  name    = "${local.name}-dead-letter"

  depends_on = [google_project_service.needed]
}

resource "google_pubsub_subscription" "dead_letter" {
  project                    = var.project
  name                       = google_pubsub_topic.dead_letter.name
  topic                      = google_pubsub_topic.dead_letter.id
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = "" # never
  }
}

resource "google_cloudfunctions2_function" "collector" {
  project     = var.project
  location    = var.region
  name        = local.name
  description = "Proofpoint TAP forensics → gs://${var.bucket}/${local.prefix}/"

  build_config {
    runtime     = "python313"
    entry_point = "main"

    source {
      storage_source {
        bucket = google_storage_bucket_object.source.bucket
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    available_cpu    = "1"
    available_memory = "512Mi"
    timeout_seconds  = 540
    # A run may use all of its memory and CPU: one at a time in an instance.
    max_instance_request_concurrency = 1
    min_instance_count               = 0
    max_instance_count               = local.instances
    ingress_settings                 = "ALLOW_INTERNAL_ONLY"
    all_traffic_on_latest_revision   = true
    service_account_email            = google_service_account.collector.email
    environment_variables            = local.environment

    dynamic "secret_volumes" {
      for_each = local.credentials
      content {
        mount_path = secret_volumes.value.directory
        project_id = data.google_project.this.number
        secret     = google_secret_manager_secret.credential[secret_volumes.key].secret_id

        # "latest" is looked up at each read: a rotated secret needs no new deployment.
        versions {
          path    = secret_volumes.value.file
          version = "latest"
        }
      }
    }
  }

  event_trigger {
    trigger_region        = var.region
    event_type            = "google.cloud.pubsub.topic.v1.messagePublished"
    pubsub_topic          = google_pubsub_topic.trigger.id
    service_account_email = google_service_account.collector.email
    # A run that failed is tried again within seconds, not at the next hour; what goes on failing
    # ends in the dead-letter topic.
    retry_policy = "RETRY_POLICY_RETRY"
  }

  # Cloud Run looks whether the secrets can be read when it makes a revision.
  depends_on = [
    google_project_service.needed,
    google_secret_manager_secret_iam_member.collector_reads,
    google_secret_manager_secret_version.blank,
  ]
}
