# The feeds in SecOps, where secops is set; otherwise they are made by hand from the output `feeds`.

locals {
  feeds = merge(
    { forensics = { prefix = local.prefix, log_type = "PROOFPOINT_TAP_FORENSICS" } },
    local.events_prefix == "" ? {} : { events = { prefix = local.events_prefix, log_type = "PROOFPOINT_MAIL" } },
  )
  secops_project = var.secops == null ? null : coalesce(var.secops.project, var.project)
}

resource "google_chronicle_feed" "this" {
  for_each = { for name, feed in local.feeds : name => feed if var.secops != null }

  project      = local.secops_project
  location     = var.secops.location
  instance     = var.secops.instance
  display_name = "${local.name} ${each.key}"
  enabled      = true

  details {
    feed_source_type = "GOOGLE_CLOUD_STORAGE_V2"
    log_type         = "projects/${local.secops_project}/locations/${var.secops.location}/instances/${var.secops.instance}/logTypes/${each.value.log_type}"

    gcs_v2_settings {
      bucket_uri = "gs://${google_storage_bucket.evidence.name}/${each.value.prefix}/"
      # retention_days deletes; the feed's account may only read.
      source_deletion_option = "NEVER"
    }
  }

  depends_on = [google_storage_bucket_iam_member.feed_reads]
}
