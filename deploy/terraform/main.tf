# The function. What starts it, its build, bucket, identities and credentials are in files of their own.

locals {
  name = var.name

  prefix           = trim(lookup(var.settings, "GCS_PREFIX", "tap-forensics"), "/")
  events_prefix    = trim(lookup(var.settings, "EVENTS_PREFIX", ""), "/")
  summaries_prefix = trim(lookup(var.settings, "SUMMARIES_PREFIX", ""), "/")
  # SecOps ingests whatever is under a feed's prefix, and may delete it: the state is under none.
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
  project_id = var.project_id
}

resource "google_project_service" "needed" {
  for_each = toset(concat([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudfunctions.googleapis.com",
    "cloudscheduler.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
    ],
    var.vpc == null ? [] : ["compute.googleapis.com"],
  ))

  project = var.project_id
  service = each.value
  # Other things in the project may use them.
  disable_on_destroy = false
}

resource "google_cloudfunctions2_function" "collector" {
  project      = var.project_id
  location     = var.region
  name         = local.name
  description  = "Proofpoint TAP forensics → gs://${var.bucket}/${local.prefix}/"
  kms_key_name = var.kms_key_name
  labels       = var.labels

  build_config {
    runtime           = "python313"
    entry_point       = "main"
    service_account   = google_service_account.build.id
    docker_repository = google_artifact_registry_repository.images.id

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

    # All traffic, because TAP is on the internet: it leaves by the network's own NAT, with that one's address.
    direct_vpc_egress = var.vpc == null ? null : "VPC_EGRESS_ALL_TRAFFIC"

    dynamic "direct_vpc_network_interface" {
      for_each = var.vpc[*]
      content {
        network    = direct_vpc_network_interface.value.network
        subnetwork = direct_vpc_network_interface.value.subnetwork
        tags       = direct_vpc_network_interface.value.tags
      }
    }

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

  # Cloud Run looks whether the secrets can be read when it makes a revision, and the build whether it may build.
  depends_on = [
    google_project_service.needed,
    google_secret_manager_secret_iam_member.collector_reads,
    google_secret_manager_secret_version.blank,
    google_artifact_registry_repository_iam_member.build_writes,
    google_project_iam_member.build,
    google_storage_bucket_iam_member.build_reads,
  ]
}
