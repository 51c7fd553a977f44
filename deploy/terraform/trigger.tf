# Pub/Sub → function. The subscription pushes to the function itself: an Eventarc trigger makes a subscription that
# Terraform cannot change, and so without dead letters. functions-framework makes the same CloudEvent of either.

resource "google_pubsub_topic" "trigger" {
  #checkov:skip=CKV_GCP_83:A message is {}, or a tenant's name; kms_key_name encrypts it too.
  project      = var.project_id
  name         = "${local.name}-trigger"
  kms_key_name = var.kms_key_name
  labels       = var.labels

  depends_on = [google_project_service.needed]
}

resource "google_pubsub_subscription" "trigger" {
  project                    = var.project_id
  name                       = google_pubsub_topic.trigger.name
  topic                      = google_pubsub_topic.trigger.id
  labels                     = var.labels
  message_retention_duration = "86400s"
  # More than the function's time limit: a message is not delivered again while its run is at work.
  ack_deadline_seconds = 600

  push_config {
    push_endpoint = google_cloudfunctions2_function.collector.service_config[0].uri

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = google_cloudfunctions2_function.collector.service_config[0].uri
    }
  }

  # A run that failed is tried again within seconds, not at the next hour.
  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  # What goes on failing is kept to be looked at.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letter.id
    max_delivery_attempts = 10
  }

  expiration_policy {
    ttl = "" # never
  }

  depends_on = [
    google_cloud_run_v2_service_iam_member.trigger_invokes,
    google_service_account_iam_member.pubsub_signs,
    google_pubsub_topic_iam_member.dead_letters_come,
  ]
}

resource "google_pubsub_topic" "dead_letter" {
  #checkov:skip=CKV_GCP_83:A message is {}, or a tenant's name; kms_key_name encrypts it too.
  project      = var.project_id
  name         = "${local.name}-dead-letter"
  kms_key_name = var.kms_key_name
  labels       = var.labels

  depends_on = [google_project_service.needed]
}

resource "google_pubsub_subscription" "dead_letter" {
  project                    = var.project_id
  name                       = google_pubsub_topic.dead_letter.name
  topic                      = google_pubsub_topic.dead_letter.id
  labels                     = var.labels
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = "" # never
  }
}

resource "google_service_account" "push" {
  project      = var.project_id
  account_id   = "${local.name}-push"
  display_name = "Starts ${local.name}"

  depends_on = [google_project_service.needed]
}

# The subscription calls the function as this account; nobody else may call it.
resource "google_cloud_run_v2_service_iam_member" "trigger_invokes" {
  project  = var.project_id
  location = var.region
  name     = google_cloudfunctions2_function.collector.name
  role     = "roles/run.invoker"
  member   = google_service_account.push.member
}

# Pub/Sub itself signs the calls, and passes dead letters on.
resource "google_service_account_iam_member" "pubsub_signs" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = "serviceAccount:${local.pubsub_agent}"
}

resource "google_pubsub_topic_iam_member" "dead_letters_come" {
  project = var.project_id
  topic   = google_pubsub_topic.dead_letter.name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:${local.pubsub_agent}"
}

resource "google_pubsub_subscription_iam_member" "dead_letters_leave" {
  project      = var.project_id
  subscription = google_pubsub_subscription.trigger.name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:${local.pubsub_agent}"
}

locals {
  pubsub_agent = "service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}
