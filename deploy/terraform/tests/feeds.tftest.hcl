# The feeds in SecOps: one for each folder, of either kind, and what they may read.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_data "google_storage_project_service_account" {
    defaults = { member = "serviceAccount:service-123456789012@gs-project-accounts.iam.gserviceaccount.com" }
  }
  mock_resource "google_chronicle_feed" {
    defaults = { feed_service_account = "feeds-of-secops@example.com" }
  }
}

variables {
  project_id = "demo-project"
  region     = "us-central1"
  bucket     = "example-com-tap"
  settings   = { EVENTS_PREFIX = "tap-events", SUMMARIES_PREFIX = "/tap-summaries/" }
  secops     = { instance = "11111111-2222-3333-4444-555555555555", location = "us" }
}

run "a_feed_for_each_folder" {
  command = apply

  assert {
    condition = { for name, feed in google_chronicle_feed.this : name => "${feed.details[0].feed_source_type} ${feed.details[0].log_type} ${feed.details[0].google_cloud_storage_event_driven_settings[0].bucket_uri}" } == {
      forensics = "GOOGLE_CLOUD_STORAGE_EVENT_DRIVEN projects/demo-project/locations/us/instances/11111111-2222-3333-4444-555555555555/logTypes/PROOFPOINT_TAP_FORENSICS gs://example-com-tap/tap-forensics/"
      events    = "GOOGLE_CLOUD_STORAGE_EVENT_DRIVEN projects/demo-project/locations/us/instances/11111111-2222-3333-4444-555555555555/logTypes/PROOFPOINT_MAIL gs://example-com-tap/tap-events/"
      summaries = "GOOGLE_CLOUD_STORAGE_EVENT_DRIVEN projects/demo-project/locations/us/instances/11111111-2222-3333-4444-555555555555/logTypes/PROOFPOINT_TAP_THREATS gs://example-com-tap/tap-summaries/"
    }
    error_message = "Event-driven, each with its log type, the URI with the closing slash."
  }
  assert {
    condition     = alltrue([for name, feed in google_chronicle_feed.this : feed.details[0].google_cloud_storage_event_driven_settings[0].pubsub_subscription == google_pubsub_subscription.feed[name].id && feed.details[0].google_cloud_storage_event_driven_settings[0].source_deletion_option == "NEVER" && length(feed.details[0].gcs_v2_settings) == 0])
    error_message = "Each reads its own subscription, and deletes nothing."
  }
  assert {
    condition = { for subscription in google_pubsub_subscription.feed : subscription.name => subscription.filter } == {
      tap-forensics-collector-feed-forensics = "hasPrefix(attributes.objectId, \"tap-forensics/\")"
      tap-forensics-collector-feed-events    = "hasPrefix(attributes.objectId, \"tap-events/\")"
      tap-forensics-collector-feed-summaries = "hasPrefix(attributes.objectId, \"tap-summaries/\")"
    }
    error_message = "Of the bucket's new objects each gets those of its folder; nobody those of the state."
  }
  assert {
    condition     = google_storage_notification.objects[0].event_types == toset(["OBJECT_FINALIZE"]) && google_storage_notification.objects[0].topic == google_pubsub_topic.objects[0].id && google_pubsub_topic_iam_member.bucket_tells[0].member == "serviceAccount:service-123456789012@gs-project-accounts.iam.gserviceaccount.com"
    error_message = "One notification for all feeds."
  }
  assert {
    condition     = toset([for grant in google_storage_bucket_iam_member.feed_reads_by_itself : "${grant.role} ${grant.member}"]) == toset(["roles/storage.legacyBucketReader serviceAccount:feeds-of-secops@example.com", "roles/storage.objectViewer serviceAccount:feeds-of-secops@example.com"]) && length(google_storage_bucket_iam_member.feed_reads_by_itself) == 2
    error_message = "The account that the feed names may read the bucket, granted once."
  }
  assert {
    condition     = alltrue([for grant in google_pubsub_subscription_iam_member.feed_pulls : grant.role == "roles/pubsub.subscriber" && grant.member == "serviceAccount:feeds-of-secops@example.com"]) && length(google_pubsub_subscription_iam_member.feed_pulls) == 3
    error_message = "And take from the subscriptions."
  }
  assert {
    condition     = output.feeds == { PROOFPOINT_TAP_FORENSICS = "gs://example-com-tap/tap-forensics/", PROOFPOINT_MAIL = "gs://example-com-tap/tap-events/", PROOFPOINT_TAP_THREATS = "gs://example-com-tap/tap-summaries/" }
    error_message = "By hand: the same."
  }
}

run "namespace_and_labels_are_put_on_what_is_ingested" {
  command = plan
  variables {
    secops = { instance = "11111111-2222-3333-4444-555555555555", location = "us", project_id = "secops-project", namespace = "mail", labels = { source = "tap" } }
  }

  assert {
    condition     = alltrue([for feed in google_chronicle_feed.this : feed.details[0].asset_namespace == "mail" && feed.details[0].labels == tomap({ source = "tap" }) && feed.project == "secops-project" && startswith(feed.details[0].log_type, "projects/secops-project/")])
    error_message = "On each feed, in the project of the instance."
  }
}

run "feeds_that_poll" {
  command = plan
  variables {
    secops               = { instance = "11111111-2222-3333-4444-555555555555", location = "us", kind = "polling" }
    feed_service_account = "feed@example.com"
  }

  assert {
    condition = { for name, feed in google_chronicle_feed.this : name => "${feed.details[0].feed_source_type} ${feed.details[0].gcs_v2_settings[0].bucket_uri}" } == {
      forensics = "GOOGLE_CLOUD_STORAGE_V2 gs://example-com-tap/tap-forensics/"
      events    = "GOOGLE_CLOUD_STORAGE_V2 gs://example-com-tap/tap-events/"
      summaries = "GOOGLE_CLOUD_STORAGE_V2 gs://example-com-tap/tap-summaries/"
    }
    error_message = "The other kind."
  }
  assert {
    condition     = length(google_pubsub_subscription.feed) + length(google_storage_notification.objects) + length(google_pubsub_topic.objects) + length(google_storage_bucket_iam_member.feed_reads_by_itself) == 0 && length(google_storage_bucket_iam_member.feed_reads) == 2
    error_message = "Without notifications; the account is the variable's."
  }
}

run "a_feed_that_polls_and_may_not_read_is_refused" {
  command = plan
  variables {
    secops = { instance = "11111111-2222-3333-4444-555555555555", location = "us", kind = "polling" }
  }
  expect_failures = [var.secops]
}

run "an_unknown_kind_is_refused" {
  command = plan
  variables {
    secops = { instance = "11111111-2222-3333-4444-555555555555", location = "us", kind = "push" }
  }
  expect_failures = [var.secops]
}

run "an_instance_that_is_none_is_refused" {
  command = plan
  variables {
    secops = { instance = "my-company", location = "us" }
  }
  expect_failures = [var.secops]
}

run "no_feeds_without_secops" {
  command = plan
  variables {
    secops = null
  }

  assert {
    condition     = length(google_chronicle_feed.this) + length(google_pubsub_topic.objects) == 0 && length(output.feeds) == 3
    error_message = "They are made by hand."
  }
}

run "tenants_have_namespaces_labels_and_instances" {
  command = apply
  variables {
    settings = { SUMMARIES_PREFIX = "tap-summaries" }
    secops   = { instance = "11111111-2222-3333-4444-555555555555", location = "us", labels = { source = "tap" } }
    tenants = {
      acme    = {}
      globex  = { secops = { instance = "99999999-2222-3333-4444-555555555555", location = "eu", project_id = "globex-secops" } }
      initech = { namespace = "mail", labels = { contract = "gold" } }
    }
  }

  assert {
    condition = { for name, feed in google_chronicle_feed.this : name => "${feed.project} ${feed.location} ${substr(feed.instance, 0, 4)} ${feed.details[0].asset_namespace} ${jsonencode(feed.details[0].labels)} ${feed.details[0].google_cloud_storage_event_driven_settings[0].bucket_uri}" } == {
      "acme/forensics"    = "demo-project us 1111 acme {\"source\":\"tap\"} gs://example-com-tap/tap-forensics/acme/"
      "acme/summaries"    = "demo-project us 1111 acme {\"source\":\"tap\"} gs://example-com-tap/tap-summaries/acme/"
      "globex/forensics"  = "globex-secops eu 9999 globex {\"source\":\"tap\"} gs://example-com-tap/tap-forensics/globex/"
      "globex/summaries"  = "globex-secops eu 9999 globex {\"source\":\"tap\"} gs://example-com-tap/tap-summaries/globex/"
      "initech/forensics" = "demo-project us 1111 mail {\"contract\":\"gold\",\"source\":\"tap\"} gs://example-com-tap/tap-forensics/initech/"
      "initech/summaries" = "demo-project us 1111 mail {\"contract\":\"gold\",\"source\":\"tap\"} gs://example-com-tap/tap-summaries/initech/"
    }
    error_message = "What a tenant does not say is as secops says."
  }
  assert {
    condition     = google_pubsub_subscription.feed["acme/summaries"].name == "tap-forensics-collector-feed-acme-summaries" && google_pubsub_subscription.feed["acme/summaries"].filter == "hasPrefix(attributes.objectId, \"tap-summaries/acme/\")" && length(google_storage_notification.objects) == 1
    error_message = "A subscription a feed, one notification for all."
  }
  assert {
    condition     = length(google_storage_bucket_iam_member.feed_reads_by_itself) == 4 && length(google_pubsub_subscription_iam_member.feed_pulls) == 6
    error_message = "Two roles on the bucket for each of the two instances."
  }
  assert {
    condition     = output.tenant_feeds["acme"] == { PROOFPOINT_TAP_FORENSICS = "gs://example-com-tap/tap-forensics/acme/", PROOFPOINT_TAP_THREATS = "gs://example-com-tap/tap-summaries/acme/" }
    error_message = "By hand: the same."
  }
}

run "one_tenant_alone_may_have_an_instance" {
  command = plan
  variables {
    secops  = null
    tenants = { acme = {}, globex = { secops = { instance = "99999999-2222-3333-4444-555555555555", location = "eu" } } }
  }

  assert {
    condition     = toset(keys(google_chronicle_feed.this)) == toset(["globex/forensics", "globex/events", "globex/summaries"])
    error_message = "Feeds for those that have one."
  }
}

run "a_tenants_instance_that_is_none_is_refused" {
  command = plan
  variables {
    tenants = { acme = { secops = { instance = "acme", location = "us" } } }
  }
  expect_failures = [var.tenants]
}

run "a_folder_of_the_state_is_refused_for_summaries_too" {
  command = plan
  variables {
    settings = { SUMMARIES_PREFIX = "state/summaries" }
  }
  expect_failures = [var.settings]
}

run "a_folder_in_another_is_refused" {
  command = plan
  variables {
    settings = { EVENTS_PREFIX = "tap-forensics/events/" }
  }
  expect_failures = [var.settings]
}

run "one_folder_for_two_feeds_is_refused" {
  command = plan
  variables {
    settings = { EVENTS_PREFIX = "tap", SUMMARIES_PREFIX = "/tap/" }
  }
  expect_failures = [var.settings]
}

run "folders_that_only_begin_alike_are_fine" {
  command = plan
  variables {
    settings = { EVENTS_PREFIX = "tap-forensics-events", SUMMARIES_PREFIX = "tap-forensics-events-2" }
  }

  assert {
    condition     = length(local.kinds) == 3
    error_message = "The slash tells them apart."
  }
}

run "retention_is_for_all_three_folders" {
  command = plan
  variables {
    retention_days = 30
  }

  assert {
    condition     = one(google_storage_bucket.evidence.lifecycle_rule[1].condition).matches_prefix == tolist(["tap-forensics/", "tap-events/", "tap-summaries/"])
    error_message = "The state is in none of them."
  }
}
