# Many tenants: what each has of its own, and what they share.

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

variables {
  project_id = "demo-project"
  region     = "us-central1"
  bucket     = "example-com-tap"

  tenants = { acme = {}, globex = {}, initech = { schedule = "*/15 * * * *" }, umbrella = {} }
}

run "a_job_a_secret_and_feeds_each" {
  command = apply
  variables {
    settings = { EVENTS_PREFIX = "tap-events" }
  }

  assert {
    condition = { for job in google_cloud_scheduler_job.start : job.name => "${job.schedule} ${base64decode(job.pubsub_target[0].data)}" } == {
      tap-forensics-collector-tenant-acme     = "0 * * * * {\"tenant\":\"acme\"}"
      tap-forensics-collector-tenant-globex   = "15 * * * * {\"tenant\":\"globex\"}"
      tap-forensics-collector-tenant-initech  = "*/15 * * * * {\"tenant\":\"initech\"}"
      tap-forensics-collector-tenant-umbrella = "45 * * * * {\"tenant\":\"umbrella\"}"
    }
    error_message = "Spread over the hour; a schedule of its own wins; none for the single tenant."
  }
  assert {
    condition = {
      for volume in google_cloudfunctions2_function.collector.service_config[0].secret_volumes :
      "${volume.mount_path}/${volume.versions[0].path}" => "${volume.secret}:${volume.versions[0].version}"
      } == { for name in keys(var.tenants) :
      "/tenants/${name}/credentials.json" => "tap-forensics-collector-tenant-${name}:latest"
    }
    error_message = "One mounted secret a tenant, at a path of its own, and none for the single one."
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].environment_variables["TENANTS_DIR"] == "/tenants" && !anytrue([for name in keys(google_cloudfunctions2_function.collector.service_config[0].environment_variables) : startswith(name, "TAP_")])
    error_message = "The function is told where the credentials are."
  }
  assert {
    condition     = toset([for grant in google_secret_manager_secret_iam_member.collector_reads : "${grant.secret_id} ${grant.role}"]) == toset([for name in keys(var.tenants) : "tap-forensics-collector-tenant-${name} roles/secretmanager.secretAccessor"])
    error_message = "The right to read is on each secret."
  }
  assert {
    condition     = length(google_secret_manager_secret_version.blank) == 4
    error_message = "A blank each, so that the function can be deployed."
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].max_instance_count == 4 && google_cloudfunctions2_function.collector.service_config[0].max_instance_request_concurrency == 1
    error_message = "As many instances as tenants, one run in each."
  }
  assert {
    condition     = output.tenant_feeds["acme"] == { PROOFPOINT_TAP_FORENSICS = "gs://example-com-tap/tap-forensics/acme/", PROOFPOINT_MAIL = "gs://example-com-tap/tap-events/acme/" } && length(output.tenant_feeds) == 4 && output.feeds == {}
    error_message = "Feeds for each tenant's folders."
  }
  assert {
    condition     = !anytrue([for feed in values(local.feeds) : startswith(local.state_key, "${feed.prefix}/")])
    error_message = "No state under a feed."
  }
  assert {
    condition     = strcontains(output.next_steps, "add initech") && strcontains(output.next_steps, "secrets versions add \"tap-forensics-collector-tenant-$1\"") && strcontains(output.next_steps, "jobs run tap-forensics-collector-tenant-acme ")
    error_message = "The next steps say how the credentials come in."
  }
}

run "instances_are_bounded" {
  command = plan
  variables {
    max_instances = 3
  }

  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].max_instance_count == 3
    error_message = "No more than allowed."
  }
}

run "a_quarter_of_an_hour_is_shared_too" {
  command = plan
  variables {
    schedule = "*/15 * * * *"
    tenants  = { a = {}, b = {}, c = {} }
  }

  assert {
    condition     = [for job in values(google_cloud_scheduler_job.start) : job.schedule] == ["0-59/15 * * * *", "5-59/15 * * * *", "10-59/15 * * * *"]
    error_message = "Spread over the period."
  }
}

run "six_hours_are_shared_too" {
  command = plan
  variables {
    schedule = "0 */6 * * *"
    tenants  = { a = {}, b = {}, c = {}, d = {} }
  }

  assert {
    condition     = [for job in values(google_cloud_scheduler_job.start) : job.schedule] == ["0 0-23/6 * * *", "30 1-23/6 * * *", "0 3-23/6 * * *", "30 4-23/6 * * *"]
    error_message = "Spread over the period."
  }
}

run "two_hundred_share_the_hour" {
  command = plan
  variables {
    tenants = { for number in range(200) : format("customer-%03d", number) => {} }
  }

  assert {
    condition     = length(google_cloud_scheduler_job.start) == 200 && length(distinct(values(google_cloud_scheduler_job.start)[*].schedule)) == 60
    error_message = "Some in each minute of the hour."
  }
  assert {
    condition     = google_cloudfunctions2_function.collector.service_config[0].max_instance_count == 100
    error_message = "No more instances than the variable allows."
  }
}

run "the_longest_period_counts_for_the_alerts" {
  command = plan
  variables {
    tenants = { acme = {}, globex = { schedule = "30 */6 * * *" } }
  }

  assert {
    condition     = local.period_seconds == 21600 && google_cloud_scheduler_job.start["tenant-globex"].schedule == "30 */6 * * *"
    error_message = "Else a tenant that runs seldom would be missed in between."
  }
}

run "metrics_and_alerts_tell_tenants_apart" {
  command = plan

  assert {
    condition     = alltrue([for metric in concat(values(google_logging_metric.figure), values(google_logging_metric.backlog), [google_logging_metric.runs]) : metric.label_extractors["tenant"] == "EXTRACT(jsonPayload.run.tenant)"])
    error_message = "Each metric has the label."
  }
  assert {
    condition     = alltrue([for policy in google_monitoring_alert_policy.on_count : alltrue([for condition in policy.conditions : condition.condition_threshold[0].aggregations[0].group_by_fields == tolist(["metric.label.tenant"])])])
    error_message = "Counted for each tenant."
  }
  assert {
    condition     = alltrue([for policy in google_monitoring_alert_policy.on_log : policy.conditions[0].condition_matched_log[0].label_extractors["tenant"] == "EXTRACT(labels.tenant)"])
    error_message = "The alert names the tenant."
  }
}

run "a_name_that_is_no_label_is_refused" {
  command = plan
  variables {
    tenants = { "Acme Inc." = {} }
  }
  expect_failures = [var.tenants]
}

run "an_odd_schedule_is_refused" {
  command = plan
  variables {
    tenants = { acme = { schedule = "0 6 * * 1" } }
  }
  expect_failures = [var.tenants]
}

run "where_the_credentials_are_is_not_a_setting" {
  command = plan
  variables {
    settings = { TENANTS_DIR = "/elsewhere" }
  }
  expect_failures = [var.settings]
}
