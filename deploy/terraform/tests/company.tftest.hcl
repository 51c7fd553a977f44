# What a company asks for: its own key, its own network, its own names and labels, a checked source.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  project_id = "demo-project"
  region     = "us-central1"
  bucket     = "example-com-tap"
}

run "a_given_archive_is_deployed_as_it_is" {
  command = apply
  variables {
    # Not a real one: the module uploads whatever it is given.
    source_archive = "./tests/source.zip"
  }

  assert {
    condition     = length(terraform_data.source_archive) == 0 && google_storage_bucket_object.source.source == "./tests/source.zip" && google_storage_bucket_object.source.name == "tap-forensics-collector-${substr(filesha256("./tests/source.zip"), 0, 16)}.zip"
    error_message = "Nothing is packed; the name tells the content."
  }
}

run "the_own_key_is_on_everything" {
  command = plan
  variables {
    kms_key_name = "projects/keys/locations/us-central1/keyRings/ring/cryptoKeys/key"
    secops       = { instance = "11111111-2222-3333-4444-555555555555", location = "us" }
  }

  assert {
    condition     = alltrue([for bucket in [google_storage_bucket.evidence, google_storage_bucket.source] : bucket.encryption[0].default_kms_key_name == var.kms_key_name])
    error_message = "Buckets."
  }
  assert {
    condition     = alltrue([for topic in [google_pubsub_topic.trigger, google_pubsub_topic.dead_letter, google_pubsub_topic.objects[0]] : topic.kms_key_name == var.kms_key_name])
    error_message = "Topics."
  }
  assert {
    condition     = alltrue([for secret in google_secret_manager_secret.credential : secret.replication[0].user_managed[0].replicas[0].customer_managed_encryption[0].kms_key_name == var.kms_key_name])
    error_message = "Secrets."
  }
  assert {
    condition     = google_artifact_registry_repository.images.kms_key_name == var.kms_key_name && google_cloudfunctions2_function.collector.kms_key_name == var.kms_key_name
    error_message = "Images and the function."
  }
}

run "without_a_key_there_is_none" {
  command = apply

  assert {
    condition     = length(google_storage_bucket.evidence.encryption) == 0 && length(google_secret_manager_secret.credential["secret"].replication[0].user_managed[0].replicas[0].customer_managed_encryption) == 0
    error_message = "Google's own keys."
  }
  assert {
    condition     = alltrue([for secret in google_secret_manager_secret.credential : [for replica in secret.replication[0].user_managed[0].replicas : replica.location] == ["us-central1"] && length(secret.replication[0].auto) == 0])
    error_message = "Secrets stay in the region."
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.build_config[0].docker_repository == google_artifact_registry_repository.images.id
    error_message = "Images go into the repository that the build may write."
  }
  assert {
    condition     = { for role, grant in google_project_iam_member.build : role => [for condition in grant.condition : condition.expression] } == { "roles/logging.logWriter" = [], "roles/storage.objectViewer" = ["resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-123456789012-us-central1\")"] }
    error_message = "On the project the build may write logs and read the source, and no other bucket."
  }
  assert {
    condition     = google_storage_bucket_iam_member.build_reads.bucket == google_storage_bucket.source.name && google_artifact_registry_repository_iam_member.build_writes.role == "roles/artifactregistry.writer"
    error_message = "The build reads the source and writes images."
  }
}

run "a_key_in_another_region_is_refused" {
  command = plan
  variables {
    kms_key_name = "projects/keys/locations/europe-west3/keyRings/ring/cryptoKeys/key"
  }
  expect_failures = [var.kms_key_name]
}

run "traffic_leaves_through_the_own_network" {
  command = plan
  variables {
    vpc = { subnetwork = "projects/network-project/regions/us-central1/subnetworks/egress", tags = ["to-the-internet"] }
  }

  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].direct_vpc_egress == "VPC_EGRESS_ALL_TRAFFIC" && google_cloudfunctions2_function.collector.service_config[0].direct_vpc_network_interface[0].subnetwork == var.vpc.subnetwork && google_cloudfunctions2_function.collector.service_config[0].direct_vpc_network_interface[0].tags == tolist(["to-the-internet"])
    error_message = "All of it."
  }
  assert {
    condition     = contains(keys(google_project_service.needed), "compute.googleapis.com")
    error_message = "This takes a service more."
  }
}

run "without_a_network_there_is_none" {
  command = apply

  assert {
    condition     = length(google_cloudfunctions2_function.collector.service_config[0].direct_vpc_network_interface) == 0
    error_message = "Traffic leaves as Google likes."
  }
}

run "a_subnetwork_that_is_none_is_refused" {
  command = plan
  variables {
    vpc = { subnetwork = "10.0.0.0/24" }
  }
  expect_failures = [var.vpc]
}

run "a_second_copy_has_names_of_its_own" {
  command = apply
  variables {
    name        = "tap-eu"
    bucket      = "example-com-tap-eu"
    alert_email = "soc@example.com"
    secops      = { instance = "11111111-2222-3333-4444-555555555555", location = "us" }
  }

  assert {
    condition = alltrue([
      for name in concat(
        [google_cloudfunctions2_function.collector.name, google_service_account.collector.account_id, google_service_account.push.account_id, google_service_account.build.account_id],
        [google_artifact_registry_repository.images.repository_id, google_pubsub_topic.trigger.name, google_pubsub_topic.dead_letter.name, google_pubsub_topic.objects[0].name],
        [google_pubsub_subscription.trigger.name, google_pubsub_subscription.dead_letter.name],
        [for subscription in google_pubsub_subscription.feed : subscription.name],
        [for secret in google_secret_manager_secret.credential : secret.secret_id],
        [for job in google_cloud_scheduler_job.start : job.name],
        [for feed in google_chronicle_feed.this : feed.display_name],
        [for policy in merge(google_monitoring_alert_policy.on_log, google_monitoring_alert_policy.on_count) : policy.display_name],
      ) : startswith(name, "tap-eu")
    ])
    error_message = "The name is the first part of each."
  }
  assert {
    condition     = alltrue([for metric in concat(values(google_logging_metric.figure), values(google_logging_metric.backlog), [google_logging_metric.runs]) : startswith(metric.name, "tap_eu_") && strcontains(metric.filter, "service_name=\"tap-eu\"")])
    error_message = "So are the metrics, which count its own runs."
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.on_log["refused-credentials"].documentation[0].content, "`tap-eu-principal`") && jsondecode(google_monitoring_dashboard.collector.dashboard_json).displayName == "Proofpoint TAP forensics (tap-eu)"
    error_message = "The alerts name its secrets, and the dashboard itself."
  }
}

run "labels_are_on_what_can_have_them" {
  command = plan
  variables {
    labels      = { team = "soc" }
    alert_email = "soc@example.com"
  }

  assert {
    condition = alltrue([
      for labels in concat(
        [google_storage_bucket.evidence.labels, google_storage_bucket.source.labels, google_cloudfunctions2_function.collector.labels, google_artifact_registry_repository.images.labels],
        [google_pubsub_topic.trigger.labels, google_pubsub_topic.dead_letter.labels, google_pubsub_subscription.trigger.labels, google_pubsub_subscription.dead_letter.labels],
        [for secret in google_secret_manager_secret.credential : secret.labels],
        [for policy in merge(google_monitoring_alert_policy.on_log, google_monitoring_alert_policy.on_count) : policy.user_labels],
        [google_monitoring_notification_channel.email[0].user_labels],
      ) : labels == tomap({ team = "soc" })
    ])
    error_message = "Labels."
  }
}

run "an_archive_that_is_not_there_is_refused" {
  command = plan
  variables {
    source_archive = "./missing.zip"
  }
  expect_failures = [var.source_archive]
}

run "inputs_that_cannot_be_right_are_refused" {
  command = plan
  variables {
    project_id            = "My Project"
    region                = "us"
    bucket                = "UPPER"
    name                  = "tap-forensics-collector-eu"
    labels                = { Team = "soc" }
    max_instances         = 1.5
    retention_days        = 0
    feed_service_account  = "serviceAccount:feed@example.com"
    alert_email           = "soc"
    notification_channels = ["1234"]
    runbook_url           = "RUNBOOK.md"
    schedule              = "*/0 * * * *"
  }
  expect_failures = [
    var.project_id, var.region, var.bucket, var.name, var.labels, var.max_instances, var.retention_days,
    var.feed_service_account, var.alert_email, var.notification_channels, var.runbook_url, var.schedule,
  ]
}

run "odd_schedule_is_refused" {
  command = plan
  variables {
    schedule = "0 6 * * 1"
  }
  expect_failures = [var.schedule]
}

run "a_minute_that_is_none_is_refused" {
  command = plan
  variables {
    schedule = "75 * * * *"
  }
  expect_failures = [var.schedule]
}
