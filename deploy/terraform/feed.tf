# The feeds in SecOps, where secops is set; otherwise they are made by hand from the output `feeds`.

locals {
  # A feed reads one folder as one log type: one or two for the single tenant, or for each of the tenants.
  kinds = merge(
    { forensics = { prefix = local.prefix, log_type = "PROOFPOINT_TAP_FORENSICS" } },
    local.events_prefix == "" ? {} : { events = { prefix = local.events_prefix, log_type = "PROOFPOINT_MAIL" } },
  )
  feeds = merge(
    { for kind, feed in local.kinds : kind => merge(feed, { tenant = null }) if local.single },
    { for pair in setproduct(keys(var.tenants), keys(local.kinds)) : join("/", pair) => {
      prefix = "${local.kinds[pair[1]].prefix}/${pair[0]}", log_type = local.kinds[pair[1]].log_type, tenant = pair[0]
    } },
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
    # Whose events these are, where one instance holds those of many.
    asset_namespace = each.value.tenant
    log_type        = "projects/${local.secops_project}/locations/${var.secops.location}/instances/${var.secops.instance}/logTypes/${each.value.log_type}"

    gcs_v2_settings {
      bucket_uri = "gs://${google_storage_bucket.evidence.name}/${each.value.prefix}/"
      # retention_days deletes; the feed's account may only read.
      source_deletion_option = "NEVER"
    }
  }

  depends_on = [google_storage_bucket_iam_member.feed_reads]
}
