# Metrics, alerts and dashboard.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  project_id  = "demo-project"
  region      = "us-central1"
  bucket      = "example-com-tap"
  alert_email = "soc@example.com"
  runbook_url = "https://example.com/RUNBOOK.md"
}

run "hourly" {
  command = plan

  assert {
    condition     = length(setunion(keys(google_monitoring_alert_policy.on_log), keys(google_monitoring_alert_policy.on_count))) == 5
    error_message = "Five alerts."
  }
  assert {
    condition     = alltrue([for name, policy in merge(google_monitoring_alert_policy.on_log, google_monitoring_alert_policy.on_count) : startswith(policy.documentation[0].content, "**Means**") && policy.documentation[0].links[0].url == "https://example.com/RUNBOOK.md#${name}"])
    error_message = "Each alert brings its paragraph, and the link to it."
  }
  assert {
    condition     = google_monitoring_alert_policy.on_count["no-finished-run"].conditions[0].condition_threshold[0].aggregations[0].alignment_period == "7200s"
    error_message = "Two periods."
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.on_log["cursor-lag"].conditions[0].condition_matched_log[0].filter, "jsonPayload.run.cursor_lag_seconds>7200")
    error_message = "Over two hours."
  }
  assert {
    condition     = endswith(google_monitoring_alert_policy.on_log["refused-credentials"].conditions[0].condition_matched_log[0].filter, " AND jsonPayload.error=(\"AuthenticationFailed\" OR \"InvalidCredentials\")")
    error_message = "A field, and no text that another message may hold."
  }
  assert {
    condition     = endswith(google_logging_metric.backlog["grew"].filter, " AND jsonPayload.run.backlog_growth>0 AND jsonPayload.run.threats_uncovered>0") && endswith(google_logging_metric.backlog["held"].filter, " AND (jsonPayload.run.backlog_growth<=0 OR jsonPayload.run.threats_uncovered=0)")
    error_message = "A backlog of covered threats alone raises no alert; each run counts as one or the other."
  }
  assert {
    condition     = google_logging_metric.figure["reports"].value_extractor == "EXTRACT(jsonPayload.run.reports)"
    error_message = "Figures are read from the final line."
  }
  assert {
    condition     = alltrue([for chart in values(local.charts) : alltrue([for line in chart : contains(concat(["runs"], keys(local.figures)), line)])])
    error_message = "The dashboard shows metrics that are there."
  }
}

run "every_quarter_of_an_hour" {
  command = plan
  variables {
    schedule = "*/15 * * * *"
  }

  assert {
    condition     = local.period_seconds == 900 && local.growing_seconds == 10800
    error_message = "15 minutes, and twelve of them."
  }
}

run "every_six_hours" {
  command = plan
  variables {
    schedule = "0 */6 * * *"
  }

  assert {
    condition     = local.period_seconds == 21600 && local.growing_seconds == 86400
    error_message = "6 hours; and no longer than Monitoring looks back."
  }
}
