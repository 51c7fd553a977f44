# Who may do what: each right on the one thing it is for. build.tf and trigger.tf have accounts of their own.

resource "google_service_account" "collector" {
  project      = var.project_id
  account_id   = "${local.name}-sa"
  display_name = "Proofpoint TAP forensics collector"

  depends_on = [google_project_service.needed]
}

# Reads, lists, creates and replaces objects. Listing is needed to tell a missing object from a forbidden one.
resource "google_storage_bucket_iam_member" "collector_writes" {
  bucket = google_storage_bucket.evidence.name
  role   = "roles/storage.objectUser"
  member = google_service_account.collector.member
}

resource "google_secret_manager_secret_iam_member" "collector_reads" {
  for_each = google_secret_manager_secret.credential

  project   = var.project_id
  secret_id = each.value.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.collector.member
}

# SecOps lists the bucket with the one and reads its objects with the other.
resource "google_storage_bucket_iam_member" "feed_reads" {
  for_each = var.feed_service_account == null ? [] : toset(local.feed_roles)

  bucket = google_storage_bucket.evidence.name
  role   = each.value
  member = "serviceAccount:${var.feed_service_account}"
}
