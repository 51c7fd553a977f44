# What the module makes, against a mocked provider, is what tests/deploy/facts.json says; the quick-start script is held
# to the same list. Then what the settings change and refuse.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_resource "google_service_account" {
    defaults = {
      email  = "tap-forensics-collector-sa@demo-project.iam.gserviceaccount.com"
      member = "serviceAccount:tap-forensics-collector-sa@demo-project.iam.gserviceaccount.com"
    }
  }
}

override_resource {
  target = google_service_account.push
  values = {
    id     = "projects/demo-project/serviceAccounts/tap-forensics-collector-push@demo-project.iam.gserviceaccount.com"
    name   = "projects/demo-project/serviceAccounts/tap-forensics-collector-push@demo-project.iam.gserviceaccount.com"
    email  = "tap-forensics-collector-push@demo-project.iam.gserviceaccount.com"
    member = "serviceAccount:tap-forensics-collector-push@demo-project.iam.gserviceaccount.com"
  }
}

override_resource {
  target = google_service_account.build
  values = {
    id     = "projects/demo-project/serviceAccounts/tap-forensics-collector-build@demo-project.iam.gserviceaccount.com"
    member = "serviceAccount:tap-forensics-collector-build@demo-project.iam.gserviceaccount.com"
  }
}

variables {
  project_id = "demo-project"
  region     = "us-central1"
  bucket     = "example-com-tap"

  feed_service_account = "feed@example.com"
}

run "as_the_facts_say" {
  command = apply

  assert {
    condition = jsondecode(file("${path.module}/../../tests/deploy/facts.json")).function == {
      name            = google_cloudfunctions2_function.collector.name
      runtime         = google_cloudfunctions2_function.collector.build_config[0].runtime
      entry_point     = google_cloudfunctions2_function.collector.build_config[0].entry_point
      timeout_seconds = google_cloudfunctions2_function.collector.service_config[0].timeout_seconds
      memory          = google_cloudfunctions2_function.collector.service_config[0].available_memory
      cpu             = google_cloudfunctions2_function.collector.service_config[0].available_cpu
      min_instances   = google_cloudfunctions2_function.collector.service_config[0].min_instance_count
      max_instances   = google_cloudfunctions2_function.collector.service_config[0].max_instance_count
      concurrency     = google_cloudfunctions2_function.collector.service_config[0].max_instance_request_concurrency
      ingress         = google_cloudfunctions2_function.collector.service_config[0].ingress_settings
      runs_as         = split("@", google_cloudfunctions2_function.collector.service_config[0].service_account_email)[0]
    }
    error_message = "function"
  }
  assert {
    condition     = tomap(jsondecode(file("${path.module}/../../tests/deploy/facts.json")).environment) == tomap(google_cloudfunctions2_function.collector.service_config[0].environment_variables)
    error_message = "environment"
  }
  assert {
    condition = tomap(jsondecode(file("${path.module}/../../tests/deploy/facts.json")).mounted) == tomap({
      for volume in google_cloudfunctions2_function.collector.service_config[0].secret_volumes :
      "${volume.mount_path}/${volume.versions[0].path}" => "${volume.secret}:${volume.versions[0].version}"
    })
    error_message = "mounted"
  }
  assert {
    condition = { for thing, roles in jsondecode(file("${path.module}/../../tests/deploy/facts.json")).roles : thing => toset(roles) if thing != "service" } == merge({
      bucket = toset([
        for grant in concat([google_storage_bucket_iam_member.collector_lists], values(google_storage_bucket_iam_member.collector_objects), values(google_storage_bucket_iam_member.feed_reads)) :
        trimspace("${grant.role} ${trimsuffix(trimprefix(grant.member, "serviceAccount:"), "@demo-project.iam.gserviceaccount.com")} ${join("", grant.condition[*].expression)}") if grant.bucket == "example-com-tap"
      ])
      dead_letter_topic = toset(["${google_pubsub_topic_iam_member.dead_letters_come.role} ${split(".", split("@", google_pubsub_topic_iam_member.dead_letters_come.member)[1])[0]}"])
      }, {
      for grant in google_secret_manager_secret_iam_member.collector_reads :
      grant.secret_id => toset(["${grant.role} ${split(":", split("@", grant.member)[0])[1]}"])
    })
    error_message = "roles"
  }
  assert {
    condition = jsondecode(file("${path.module}/../../tests/deploy/facts.json")).terraform_trigger == {
      topic                 = google_pubsub_subscription.trigger.topic == google_pubsub_topic.trigger.id ? google_pubsub_topic.trigger.name : "another"
      ack_deadline_seconds  = google_pubsub_subscription.trigger.ack_deadline_seconds
      message_retention     = google_pubsub_subscription.trigger.message_retention_duration
      retry_policy          = [google_pubsub_subscription.trigger.retry_policy[0].minimum_backoff, google_pubsub_subscription.trigger.retry_policy[0].maximum_backoff]
      dead_letter_topic     = google_pubsub_subscription.trigger.dead_letter_policy[0].dead_letter_topic == google_pubsub_topic.dead_letter.id ? google_pubsub_topic.dead_letter.name : "another"
      max_delivery_attempts = google_pubsub_subscription.trigger.dead_letter_policy[0].max_delivery_attempts
      calls_as              = split("@", google_pubsub_subscription.trigger.push_config[0].oidc_token[0].service_account_email)[0]
    }
    error_message = "terraform_trigger"
  }
  assert {
    condition     = google_pubsub_subscription.trigger.push_config[0].push_endpoint == google_cloudfunctions2_function.collector.service_config[0].uri && google_pubsub_subscription.trigger.push_config[0].oidc_token[0].audience == google_cloudfunctions2_function.collector.service_config[0].uri
    error_message = "Messages are pushed to the function."
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.trigger_invokes.role == "roles/run.invoker" && google_cloud_run_v2_service_iam_member.trigger_invokes.member == google_service_account.push.member
    error_message = "The subscription's account may call the function."
  }
  assert {
    condition     = google_service_account_iam_member.pubsub_signs.role == "roles/iam.serviceAccountTokenCreator" && google_service_account_iam_member.pubsub_signs.service_account_id == google_service_account.push.name && google_service_account_iam_member.pubsub_signs.member == google_pubsub_topic_iam_member.dead_letters_come.member
    error_message = "Pub/Sub signs as this account, and as no other."
  }
  assert {
    condition     = google_pubsub_subscription_iam_member.dead_letters_leave.subscription == google_pubsub_subscription.trigger.name && google_pubsub_subscription_iam_member.dead_letters_leave.role == "roles/pubsub.subscriber" && google_pubsub_subscription_iam_member.dead_letters_leave.member == google_pubsub_topic_iam_member.dead_letters_come.member
    error_message = "Pub/Sub may take from the subscription what goes to the dead letters."
  }
  assert {
    condition     = length(distinct([google_service_account.collector.account_id, google_service_account.push.account_id, google_service_account.build.account_id])) == 3 && google_cloudfunctions2_function.collector.build_config[0].service_account == google_service_account.build.id
    error_message = "What runs, what starts it and what builds it are three accounts."
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.trigger_invokes.name == "tap-forensics-collector" && google_pubsub_topic_iam_member.dead_letters_come.topic == "tap-forensics-collector-dead-letter"
    error_message = "The rights are on these things."
  }
  assert {
    condition = jsondecode(file("${path.module}/../../tests/deploy/facts.json")).bucket == {
      name                        = google_storage_bucket.evidence.name
      location                    = google_storage_bucket.evidence.location
      uniform_access              = google_storage_bucket.evidence.uniform_bucket_level_access
      public_access_prevention    = google_storage_bucket.evidence.public_access_prevention
      versioning                  = google_storage_bucket.evidence.versioning[0].enabled
      replaced_versions_kept_days = one(one(google_storage_bucket.evidence.lifecycle_rule).condition).days_since_noncurrent_time
    }
    error_message = "bucket, and nothing but replaced versions is deleted"
  }
  assert {
    condition     = jsondecode(file("${path.module}/../../tests/deploy/facts.json")).topic == google_pubsub_topic.trigger.name
    error_message = "topic"
  }
  assert {
    condition = jsondecode(file("${path.module}/../../tests/deploy/facts.json")).dead_letter == {
      topic        = google_pubsub_topic.dead_letter.name
      subscription = google_pubsub_subscription.dead_letter.name
      retention    = google_pubsub_subscription.dead_letter.message_retention_duration
    }
    error_message = "dead_letter"
  }
  assert {
    condition = jsondecode(file("${path.module}/../../tests/deploy/facts.json")).schedule == {
      name      = google_cloud_scheduler_job.start["hourly"].name
      cron      = google_cloud_scheduler_job.start["hourly"].schedule
      time_zone = google_cloud_scheduler_job.start["hourly"].time_zone
      message   = base64decode(google_cloud_scheduler_job.start["hourly"].pubsub_target[0].data)
    }
    error_message = "schedule"
  }
  assert {
    condition     = setsubtract(jsondecode(file("${path.module}/../../tests/deploy/facts.json")).services, ["eventarc.googleapis.com"]) == toset(keys(google_project_service.needed))
    error_message = "services"
  }
}

run "a_folder_of_events_has_rights_of_its_own" {
  command = apply
  variables {
    settings = { EVENTS_PREFIX = "/tap-siem/" }
  }

  assert {
    condition = setsubtract([
      for grant in values(google_storage_bucket_iam_member.collector_objects) :
      "${grant.role} ${split("@", trimprefix(grant.member, "serviceAccount:"))[0]} ${grant.condition[0].expression}"
      ], jsondecode(file("${path.module}/../../tests/deploy/facts.json")).roles.bucket
    ) == toset(jsondecode(file("${path.module}/../../tests/deploy/facts.json")).roles_for_events)
    error_message = "roles_for_events"
  }
}

run "without_a_feed_account_no_right" {
  command = plan
  variables {
    feed_service_account = null
  }

  assert {
    condition     = length(google_storage_bucket_iam_member.feed_reads) == 0
    error_message = "Nobody else reads the bucket."
  }
}

run "settings_reach_the_function" {
  command = apply
  variables {
    settings = { MAX_THREATS = "1000", GCS_PREFIX = "/tap/" }
  }

  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].environment_variables["MAX_THREATS"] == "1000" && google_cloudfunctions2_function.collector.service_config[0].environment_variables["STATE_KEY"] == "state/tap/state.json"
    error_message = "Settings are passed on; the state lies outside the prefix."
  }
  assert {
    condition     = output.feeds == { PROOFPOINT_TAP_FORENSICS = "gs://example-com-tap/tap/" }
    error_message = "The feed's URI follows, with its closing slash."
  }
}

run "retention_leaves_the_state" {
  command = plan
  variables {
    retention_days = 90
    settings       = { EVENTS_PREFIX = "/tap-events/" }
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

run "no_credential_passes_through_terraform" {
  command = plan

  assert {
    condition     = trimspace(local.blank) == "" && length(google_secret_manager_secret_version.blank) == 2
    error_message = "Only a blank, which the collector takes as missing."
  }
}

run "source_is_less_what_stays_at_home" {
  command = plan

  assert {
    condition     = contains(local.source_files, "main.py") && contains(local.source_files, "requirements.txt") && contains(local.source_files, "tap_forensics/collect.py") && !anytrue([for file in local.source_files : strcontains(file, "sandbox") || strcontains(file, "/cli/") || strcontains(file, "__main__")])
    error_message = "main.py, requirements.txt and the package less the sandbox and the command line."
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

run "a_proxy_in_the_settings_is_refused" {
  command = plan
  variables {
    settings = { HTTPS_PROXY = "http://user:s3cr3t@proxy.example.com:3128" }
  }
  expect_failures = [var.settings]
}

run "a_proxy_in_lower_case_is_refused" {
  command = plan
  variables {
    settings = { https_proxy = "http://user:s3cr3t@proxy.example.com:3128" }
  }
  expect_failures = [var.settings]
}

run "the_proxys_address_is_a_mounted_secret" {
  command = apply
  variables {
    proxy    = true
    settings = { NO_PROXY = "internal.example.com" }
  }

  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].environment_variables["HTTPS_PROXY_FILE"] == "/secrets/proxy/value" && google_cloudfunctions2_function.collector.service_config[0].environment_variables["NO_PROXY"] == "internal.example.com"
    error_message = "The collector is told where the address is."
  }
  assert {
    condition = contains([
      for volume in google_cloudfunctions2_function.collector.service_config[0].secret_volumes :
      "${volume.mount_path}/${volume.versions[0].path} ${volume.secret}:${volume.versions[0].version}"
    ], "/secrets/proxy/value tap-forensics-collector-proxy:latest")
    error_message = "The address is mounted."
  }
  assert {
    condition     = contains([for grant in google_secret_manager_secret_iam_member.collector_reads : grant.secret_id], "tap-forensics-collector-proxy") && length(google_secret_manager_secret_version.blank) == 3
    error_message = "The function may read it; Terraform writes a blank alone."
  }
  assert {
    condition     = strcontains(output.next_steps, "versions add tap-forensics-collector-proxy --project=demo-project")
    error_message = "How to add it is printed."
  }
}
