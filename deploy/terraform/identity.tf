# Who may do what: each right on the one thing it is for. build.tf and trigger.tf have accounts of their own.

resource "google_service_account" "collector" {
  project      = var.project_id
  account_id   = "${local.name}-sa"
  display_name = "Proofpoint TAP forensics collector"

  depends_on = [google_project_service.needed]
}

# Listing cannot be limited to a folder. It tells a missing object from a forbidden one, and finds old versions.
resource "google_storage_bucket_iam_member" "collector_lists" {
  bucket = google_storage_bucket.evidence.name
  role   = "roles/storage.legacyBucketReader"
  member = google_service_account.collector.member
}

locals {
  # The folders that feeds read.
  collector_feed_folders = compact([
    for name in ["GCS_PREFIX", "EVENTS_PREFIX", "SUMMARIES_PREFIX"] :
    trim(lookup(var.settings, name, name == "GCS_PREFIX" ? "tap-forensics" : ""), "/")
  ])
  # Each tenant's folders are below these, and its state beside this one.
  collector_rights = merge(
    {
      for right in setproduct(["roles/storage.objectCreator", "roles/storage.objectViewer"], local.collector_feed_folders) :
      "${right[0]} ${right[1]}" => { role = right[0], folder = right[1], title = "A folder that a feed reads" }
    },
    { state = { role = "roles/storage.objectUser", folder = dirname(local.state_key), title = "The state" } },
  )
}

# Evidence is created and read, never replaced or deleted; only the state is replaced.
resource "google_storage_bucket_iam_member" "collector_objects" {
  for_each = local.collector_rights

  bucket = google_storage_bucket.evidence.name
  role   = each.value.role
  member = google_service_account.collector.member

  condition {
    title      = each.value.title
    expression = "resource.name.startsWith(${jsonencode("projects/_/buckets/${google_storage_bucket.evidence.name}/objects/${each.value.folder}/")})"
  }
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
