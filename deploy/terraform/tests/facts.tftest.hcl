# What the module makes, against a mocked provider: values that no schema checks.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_resource "google_service_account" {
    defaults = {
      email  = "tap-forensics-collector-sa@demo.iam.gserviceaccount.com"
      member = "serviceAccount:tap-forensics-collector-sa@demo.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_cloudfunctions2_function" {
    defaults = {
      event_trigger = { trigger = "projects/demo/locations/us-central1/triggers/t-1" }
    }
  }
}

variables {
  project = "demo"
  region  = "us-central1"
  bucket  = "example-com-tap"
}

run "rights_on_single_things_only" {
  command = plan

  assert {
    condition     = google_storage_bucket_iam_member.collector_writes.role == "roles/storage.objectUser" && google_storage_bucket_iam_member.collector_writes.bucket == "example-com-tap"
    error_message = "The collector writes objects of its bucket."
  }
  assert {
    condition     = toset([for grant in google_secret_manager_secret_iam_member.collector_reads : "${grant.role} ${grant.secret_id}"]) == toset(["roles/secretmanager.secretAccessor tap-forensics-collector-principal", "roles/secretmanager.secretAccessor tap-forensics-collector-secret"])
    error_message = "The collector reads its two secrets."
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.trigger_invokes.role == "roles/run.invoker" && google_cloud_run_v2_service_iam_member.trigger_invokes.name == "tap-forensics-collector"
    error_message = "The trigger calls this service."
  }
  assert {
    condition     = google_pubsub_topic_iam_member.dead_letters_come.role == "roles/pubsub.publisher"
    error_message = "Pub/Sub passes dead letters on."
  }
  assert {
    condition     = length(google_storage_bucket_iam_member.feed_reads) == 0
    error_message = "No feed account, no right."
  }
}

run "feed_account_gets_both_roles" {
  command = plan
  variables {
    feed_service_account = "feed@example.com"
  }

  assert {
    condition     = toset([for grant in google_storage_bucket_iam_member.feed_reads : "${grant.role} ${grant.member}"]) == toset(["roles/storage.objectViewer serviceAccount:feed@example.com", "roles/storage.legacyBucketReader serviceAccount:feed@example.com"])
    error_message = "A feed needs objectViewer and legacyBucketReader."
  }
}

run "bucket_is_closed_and_keeps_versions" {
  command = plan
  variables {
    retention_days = 90
    settings       = { EVENTS_PREFIX = "/tap-events/" }
  }

  assert {
    condition     = google_storage_bucket.evidence.uniform_bucket_level_access && google_storage_bucket.evidence.public_access_prevention == "enforced" && google_storage_bucket.evidence.versioning[0].enabled
    error_message = "Uniform access, no public access, versions."
  }
  assert {
    condition     = one(google_storage_bucket.evidence.lifecycle_rule[1].condition).age == 90 && one(google_storage_bucket.evidence.lifecycle_rule[1].condition).matches_prefix == tolist(["tap-forensics/", "tap-events/"])
    error_message = "Retention is for the evidence; the state lies elsewhere."
  }
  assert {
    condition     = !anytrue([for prefix in ["tap-forensics/", "tap-events/"] : startswith(local.state_key, prefix)])
    error_message = "The state lies under no feed's prefix."
  }
}

run "nothing_is_deleted_unasked" {
  command = plan

  assert {
    condition     = length(google_storage_bucket.evidence.lifecycle_rule) == 1 && one(google_storage_bucket.evidence.lifecycle_rule[0].condition).days_since_noncurrent_time == 14
    error_message = "Only versions that were replaced go."
  }
}

run "function_as_the_facts_say" {
  command = apply
  variables {
    settings = { MAX_THREATS = "1000" }
  }

  assert {
    condition     = google_cloudfunctions2_function.collector.name == "tap-forensics-collector" && google_cloudfunctions2_function.collector.build_config[0].runtime == "python313" && google_cloudfunctions2_function.collector.build_config[0].entry_point == "main"
    error_message = "Name, runtime, entry point."
  }
  assert {
    condition = tomap(google_cloudfunctions2_function.collector.service_config[0].environment_variables) == tomap({
      GCS_BUCKET         = "example-com-tap"
      GCS_PREFIX         = "tap-forensics"
      STATE_KEY          = "state/tap-forensics/state.json"
      TAP_PRINCIPAL_FILE = "/secrets/principal/value"
      TAP_SECRET_FILE    = "/secrets/secret/value"
      LOG_EXECUTION_ID   = "true"
      MAX_THREATS        = "1000"
    })
    error_message = "The environment; no credential in it."
  }
  assert {
    condition     = [for volume in google_cloudfunctions2_function.collector.service_config[0].secret_volumes : "${volume.mount_path}/${volume.versions[0].path}=${volume.secret}:${volume.versions[0].version}"] == ["/secrets/principal/value=tap-forensics-collector-principal:latest", "/secrets/secret/value=tap-forensics-collector-secret:latest"]
    error_message = "Both credentials are mounted, at the paths that the environment names, in the latest version."
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].timeout_seconds == 540 && google_cloudfunctions2_function.collector.service_config[0].available_memory == "512Mi" && google_cloudfunctions2_function.collector.service_config[0].available_cpu == "1"
    error_message = "Timeout, memory, CPU."
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].min_instance_count == 0 && google_cloudfunctions2_function.collector.service_config[0].max_instance_count == 1 && google_cloudfunctions2_function.collector.service_config[0].max_instance_request_concurrency == 1
    error_message = "0 to 1 instances, one run each."
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY" && google_cloudfunctions2_function.collector.service_config[0].service_account_email == "tap-forensics-collector-sa@demo.iam.gserviceaccount.com"
    error_message = "Internal calls only, its own account."
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.event_trigger[0].event_type == "google.cloud.pubsub.topic.v1.messagePublished" && google_cloudfunctions2_function.collector.event_trigger[0].retry_policy == "RETRY_POLICY_RETRY"
    error_message = "Pub/Sub trigger, retries."
  }
}

run "no_credential_passes_through_terraform" {
  command = plan

  assert {
    condition     = alltrue([for version in google_secret_manager_secret_version.blank : trimspace(version.secret_data) == ""])
    error_message = "Only a blank, which the collector takes as missing."
  }
}

run "schedule" {
  command = plan

  assert {
    condition     = google_cloud_scheduler_job.hourly.name == "tap-forensics-collector-hourly" && google_cloud_scheduler_job.hourly.schedule == "0 * * * *" && google_cloud_scheduler_job.hourly.time_zone == "Etc/UTC"
    error_message = "Every hour, UTC."
  }
  assert {
    condition     = base64decode(google_cloud_scheduler_job.hourly.pubsub_target[0].data) == "{}" && google_pubsub_topic.trigger.name == "tap-forensics-collector-trigger"
    error_message = "The message is {} on the trigger's topic."
  }
}

run "source_is_less_the_sandbox" {
  command = plan

  assert {
    condition     = contains(local.source_files, "main.py") && contains(local.source_files, "requirements.txt") && contains(local.source_files, "tap_forensics/collect.py") && !anytrue([for file in local.source_files : strcontains(file, "sandbox")])
    error_message = "main.py, requirements.txt and the package less the sandbox."
  }
}

run "state_prefix_is_refused" {
  command = plan
  variables {
    settings = { GCS_PREFIX = "state/tap" }
  }
  expect_failures = [var.settings]
}

run "empty_prefix_is_refused" {
  command = plan
  variables {
    settings = { GCS_PREFIX = "" }
  }
  expect_failures = [var.settings]
}

run "plain_credential_is_refused" {
  command = plan
  variables {
    settings = { TAP_SECRET = "s3cr3t" }
  }
  expect_failures = [var.settings]
}

run "odd_schedule_is_refused" {
  command = plan
  variables {
    schedule = "0 6 * * 1"
  }
  expect_failures = [var.schedule]
}

run "feed_that_may_not_read_is_refused" {
  command = plan
  variables {
    secops = { instance = "11111111-2222-3333-4444-555555555555", location = "us" }
  }
  expect_failures = [var.secops]
}

run "feeds_in_secops" {
  command = plan
  variables {
    feed_service_account = "feed@example.com"
    secops               = { instance = "11111111-2222-3333-4444-555555555555", location = "us" }
    settings             = { EVENTS_PREFIX = "tap-events" }
  }

  assert {
    condition = { for name, feed in google_chronicle_feed.this : name => "${basename(feed.details[0].log_type)} ${feed.details[0].gcs_v2_settings[0].bucket_uri}" } == {
      forensics = "PROOFPOINT_TAP_FORENSICS gs://example-com-tap/tap-forensics/"
      events    = "PROOFPOINT_MAIL gs://example-com-tap/tap-events/"
    }
    error_message = "A feed for each prefix, its URI with the closing slash."
  }
}
