# Cloud Build makes the function's image, as an account of its own: it can read neither evidence nor credentials.

resource "google_service_account" "build" {
  project      = var.project_id
  account_id   = "${local.name}-build"
  display_name = "Builds ${local.name}"

  depends_on = [google_project_service.needed]
}

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:kms_key_name is the customer's own key, if there is one.
  project       = var.project_id
  location      = var.region
  repository_id = local.name
  description   = "Images of ${local.name}"
  format        = "DOCKER"
  kms_key_name  = var.kms_key_name
  labels        = var.labels

  depends_on = [google_project_service.needed]
}

resource "google_artifact_registry_repository_iam_member" "build_writes" {
  project    = var.project_id
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}

resource "google_storage_bucket_iam_member" "build_reads" {
  bucket = google_storage_bucket.source.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.build.member
}

# Logs can be written to a project only. Cloud Functions copies the source into a bucket that it makes itself, which
# is not there at the first apply: so that right is on the project too, for this bucket alone.
resource "google_project_iam_member" "build" {
  for_each = {
    "roles/logging.logWriter"    = []
    "roles/storage.objectViewer" = ["gcf-v2-sources-${data.google_project.this.number}-${var.region}"]
  }

  project = var.project_id
  role    = each.key
  member  = google_service_account.build.member

  dynamic "condition" {
    for_each = each.value
    content {
      title      = "Source of functions"
      expression = "resource.name.startsWith(\"projects/_/buckets/${condition.value}\")"
    }
  }
}
