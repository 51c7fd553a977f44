# The feeds in SecOps, if secops is set; otherwise they are made by hand from the output `feeds`.

locals {
  # A feed reads one folder as one log type: one to three for the single tenant, or for each of the tenants.
  kinds = merge(
    { forensics = { prefix = local.prefix, log_type = "PROOFPOINT_TAP_FORENSICS" } },
    local.events_prefix == "" ? {} : { events = { prefix = local.events_prefix, log_type = "PROOFPOINT_MAIL" } },
    local.summaries_prefix == "" ? {} : { summaries = { prefix = local.summaries_prefix, log_type = "PROOFPOINT_TAP_THREATS" } },
  )
  # What a tenant does not say of itself is as `secops` says; its namespace is its name.
  readers = merge(
    { for name in ["single"] : name => {
      tenant    = null
      secops    = [for secops in [var.secops] : secops if secops != null]
      namespace = try(var.secops.namespace, null)
      labels    = try(var.secops.labels, {})
    } if local.single },
    { for name, tenant in var.tenants : name => {
      tenant    = name
      secops    = [for secops in [tenant.secops, var.secops] : secops if secops != null]
      namespace = coalesce(tenant.namespace, name)
      labels    = merge(try(var.secops.labels, {}), tenant.labels)
    } },
  )
  feeds = merge([
    for reader in values(local.readers) : {
      for kind, feed in local.kinds : join("/", compact([reader.tenant, kind])) => {
        tenant    = reader.tenant
        prefix    = join("/", compact([feed.prefix, reader.tenant]))
        log_type  = feed.log_type
        namespace = reader.namespace
        labels    = reader.labels
        kind      = try(var.secops.kind, "event_driven")
        instance = try(join("/", [
          "projects", coalesce(reader.secops[0].project_id, var.project_id), "locations", reader.secops[0].location, "instances", reader.secops[0].instance
        ]), null)
      }
    }
  ]...)
  made_feeds   = { for name, feed in local.feeds : name => feed if feed.instance != null }
  event_driven = { for name, feed in local.made_feeds : name => feed if feed.kind == "event_driven" }
  # SecOps reads with one account for each instance; the first feed of an instance tells it.
  readers_of_events = {
    for instance in distinct(values(local.event_driven)[*].instance) :
    instance => [for name, feed in local.event_driven : name if feed.instance == instance][0]
  }
  # To list the bucket, and to read its objects.
  feed_roles = ["roles/storage.legacyBucketReader", "roles/storage.objectViewer"]
}

resource "google_chronicle_feed" "this" {
  for_each = local.made_feeds

  project      = split("/", each.value.instance)[1]
  location     = split("/", each.value.instance)[3]
  instance     = split("/", each.value.instance)[5]
  display_name = "${local.name} ${each.key}"
  enabled      = true

  details {
    feed_source_type = each.value.kind == "event_driven" ? "GOOGLE_CLOUD_STORAGE_EVENT_DRIVEN" : "GOOGLE_CLOUD_STORAGE_V2"
    # Whose events these are, if one instance has those of many.
    asset_namespace = each.value.namespace
    labels          = each.value.labels
    log_type        = "${each.value.instance}/logTypes/${each.value.log_type}"

    dynamic "google_cloud_storage_event_driven_settings" {
      for_each = each.value.kind == "event_driven" ? [each.key] : []
      content {
        bucket_uri          = "gs://${google_storage_bucket.evidence.name}/${each.value.prefix}/"
        pubsub_subscription = google_pubsub_subscription.feed[each.key].id
        # retention_days deletes; the feed's account may only read.
        source_deletion_option = "NEVER"
      }
    }

    dynamic "gcs_v2_settings" {
      for_each = each.value.kind == "polling" ? [each.key] : []
      content {
        bucket_uri             = "gs://${google_storage_bucket.evidence.name}/${each.value.prefix}/"
        source_deletion_option = "NEVER"
      }
    }
  }

  # A feed that polls knows its account only after it is made; it may read from the start if the variable names it.
  depends_on = [google_storage_bucket_iam_member.feed_reads]
}

# Event-driven: the bucket tells a topic each new object, and each feed has a subscription for its own folder.
# A bucket has room for ten notifications of one kind: so there is one, and the subscriptions filter.

locals {
  notifies       = length(local.event_driven) > 0
  storage_agents = local.notifies ? [data.google_storage_project_service_account.this[0].member] : []
}

data "google_storage_project_service_account" "this" {
  count = local.notifies ? 1 : 0

  project = var.project_id
}

resource "google_pubsub_topic" "objects" {
  #checkov:skip=CKV_GCP_83:A message is the name of an object; kms_key_name encrypts it too.
  count = local.notifies ? 1 : 0

  project      = var.project_id
  name         = "${local.name}-objects"
  kms_key_name = var.kms_key_name
  labels       = var.labels

  depends_on = [google_project_service.needed]
}

resource "google_pubsub_topic_iam_member" "bucket_tells" {
  count = local.notifies ? 1 : 0

  project = var.project_id
  topic   = google_pubsub_topic.objects[0].name
  role    = "roles/pubsub.publisher"
  member  = local.storage_agents[0]
}

resource "google_storage_notification" "objects" {
  count = local.notifies ? 1 : 0

  bucket         = google_storage_bucket.evidence.name
  topic          = google_pubsub_topic.objects[0].id
  payload_format = "JSON_API_V1"
  event_types    = ["OBJECT_FINALIZE"]

  depends_on = [google_pubsub_topic_iam_member.bucket_tells]
}

resource "google_pubsub_subscription" "feed" {
  for_each = local.event_driven

  project                    = var.project_id
  name                       = "${local.name}-feed-${replace(each.key, "/", "-")}"
  topic                      = google_pubsub_topic.objects[0].id
  filter                     = "hasPrefix(attributes.objectId, \"${each.value.prefix}/\")"
  labels                     = var.labels
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = "" # never
  }
}

resource "google_pubsub_subscription_iam_member" "feed_pulls" {
  for_each = local.event_driven

  project      = var.project_id
  subscription = google_pubsub_subscription.feed[each.key].name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:${google_chronicle_feed.this[each.key].feed_service_account}"
}

resource "google_storage_bucket_iam_member" "feed_reads_by_itself" {
  for_each = { for pair in setproduct(keys(local.readers_of_events), local.feed_roles) : join(" ", pair) => pair }

  bucket = google_storage_bucket.evidence.name
  role   = each.value[1]
  member = "serviceAccount:${google_chronicle_feed.this[local.readers_of_events[each.value[0]]].feed_service_account}"
}
