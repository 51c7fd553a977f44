# What an operator sees and is told, all made from the run's final log line, `Run …`, and its figures.

locals {
  log           = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${local.name}\""
  final_line    = "${local.log} AND jsonPayload.run.outcome:*"
  finished_line = "${local.log} AND jsonPayload.run.outcome=(\"complete\" OR \"incomplete\")"
  # Metrics and dashboards are for the whole project: a second copy has its own.
  first_copy    = local.name == "tap-forensics-collector"
  metric_prefix = local.first_copy ? "tap_forensics" : replace(local.name, "-", "_")

  # Of the state, known to runs that finished; of the run, known to all.
  state_figures = {
    cursor_lag_seconds     = "How far the collected time lies behind now"
    threats_left           = "Threats on the backlog"
    threats_covered        = "Threats on the backlog whose campaign's report is delivered"
    threats_uncovered      = "Threats on the backlog without any report"
    oldest_backlog_seconds = "How long the oldest threat has waited on the backlog"
    gaps                   = "Open windows"
    oldest_gap_seconds     = "How far back the oldest gap begins"
  }
  run_figures = {
    threats_new      = "New threats"
    threats_fetched  = "Threats whose forensics were delivered"
    reports          = "Reports delivered"
    threat_reports   = "Threats' own reports delivered"
    campaign_reports = "Campaigns' reports delivered"
    summaries        = "Threat summaries delivered"
    siem_429s        = "SIEM calls that TAP throttled"
    forensics_429s   = "Forensics calls that TAP throttled"
    windows_failed   = "Intervals that could not be read"
    threats_failed   = "Threats whose forensics could not be had"
    threats_given_up = "Threats that failed for 7 days and were given up"
    lost_intervals   = "Intervals that can never be read"
    seconds          = "Duration of the run"
  }
  figures = merge(
    { for name, says in local.state_figures : name => { says = says, filter = local.finished_line } },
    { for name, says in local.run_figures : name => { says = says, filter = local.final_line } },
  )
}

resource "google_logging_metric" "figure" {
  for_each = local.figures

  project          = var.project_id
  name             = "${local.metric_prefix}_${each.key}"
  description      = "${each.value.says}, a run"
  filter           = each.value.filter
  value_extractor  = "EXTRACT(jsonPayload.run.${each.key})"
  label_extractors = { tenant = "EXTRACT(jsonPayload.run.tenant)" }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    unit        = endswith(each.key, "seconds") ? "s" : "1"

    labels {
      key         = "tenant"
      description = "Whose run it was; empty for the single tenant"
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_logging_metric" "runs" {
  project          = var.project_id
  name             = "${local.metric_prefix}_runs"
  description      = "Runs by outcome: complete, incomplete, busy or failed"
  filter           = local.final_line
  label_extractors = { outcome = "EXTRACT(jsonPayload.run.outcome)", tenant = "EXTRACT(jsonPayload.run.tenant)" }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"

    labels {
      key         = "outcome"
      description = "How the run ended"
    }
    labels {
      key         = "tenant"
      description = "Whose run it was; empty for the single tenant"
    }
  }

  depends_on = [google_project_service.needed]
}

# A filter cannot look back, so what only time shows is counted: runs after which the backlog was longer, or not.
# A threat whose campaign's report is delivered may wait: a backlog of those alone does not count as longer.
resource "google_logging_metric" "backlog" {
  for_each = {
    grew = "jsonPayload.run.backlog_growth>0 AND jsonPayload.run.threats_uncovered>0"
    held = "(jsonPayload.run.backlog_growth<=0 OR jsonPayload.run.threats_uncovered=0)"
  }

  project          = var.project_id
  name             = "${local.metric_prefix}_backlog_${each.key}"
  description      = "Finished runs after which the backlog ${each.key == "grew" ? "was longer than before" : "was no longer than before"}"
  filter           = "${local.finished_line} AND ${each.value}"
  label_extractors = { tenant = "EXTRACT(jsonPayload.run.tenant)" }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"

    labels {
      key         = "tenant"
      description = "Whose run it was; empty for the single tenant"
    }
  }

  depends_on = [google_project_service.needed]
}

# The alerts. Their texts are the paragraphs of RUNBOOK.md, whose headings have the same names.

locals {
  # Where tenants run at different times, the longest wait between two runs counts for all.
  period_seconds = 60 * max(values(local.periods)...)
  # Monitoring looks back 25 hours at most.
  growing_seconds = min(12 * local.period_seconds, 24 * 3600)

  # An alert on a log line is raised within a minute or two, and holds exact numbers.
  log_alerts = {
    cursor-lag = {
      title    = "The collected time lies over 2 hours behind"
      severity = "WARNING"
      filter   = "jsonPayload.run.cursor_lag_seconds>7200"
    }
    gap-near-the-edge = {
      title    = "A gap will be lost within a day, or an interval was lost"
      severity = "CRITICAL"
      filter   = "(jsonPayload.run.oldest_gap_seconds>518400 OR jsonPayload.run.lost_intervals>0)"
    }
    refused-credentials = {
      title    = "TAP's credentials are missing or refused"
      severity = "CRITICAL"
      # The kind of error, which no text can imitate: another fault's message may hold any words.
      filter = "jsonPayload.error=(\"AuthenticationFailed\" OR \"InvalidCredentials\")"
    }
  }
  count_alerts = {
    no-finished-run = {
      title    = "No run finished in two periods of the schedule"
      severity = "CRITICAL"
      conditions = {
        "No finished run" = {
          filter     = "metric.type=\"${local.metric_types.runs}\" AND metric.label.outcome=one_of(\"complete\", \"incomplete\")"
          comparison = "COMPARISON_LT", threshold = 1, seconds = 2 * local.period_seconds
          missing    = "EVALUATION_MISSING_DATA_ACTIVE"
        }
      }
    }
    growing-backlog = {
      title    = "The backlog only grows"
      severity = "WARNING"
      conditions = {
        "No run after which the backlog was not longer" = {
          filter     = "metric.type=\"${local.metric_types.backlog_held}\""
          comparison = "COMPARISON_LT", threshold = 1, seconds = local.growing_seconds
          missing    = "EVALUATION_MISSING_DATA_ACTIVE"
        }
        "Several runs after which it was" = {
          filter     = "metric.type=\"${local.metric_types.backlog_grew}\""
          comparison = "COMPARISON_GT", threshold = 1, seconds = local.growing_seconds
          missing    = "EVALUATION_MISSING_DATA_INACTIVE"
        }
      }
    }
  }
  metric_types = {
    runs         = "logging.googleapis.com/user/${google_logging_metric.runs.name}"
    backlog_grew = "logging.googleapis.com/user/${google_logging_metric.backlog["grew"].name}"
    backlog_held = "logging.googleapis.com/user/${google_logging_metric.backlog["held"].name}"
  }

  # Heading, as in a link → paragraph.
  runbook = {
    for part in split("\n## ", file("${path.module}/../RUNBOOK.md")) :
    replace(lower(split("\n", part)[0]), " ", "-") => replace(
      trimspace(join("\n", slice(split("\n", part), 1, length(split("\n", part))))), "tap-forensics-collector", local.name
    )
  }
  channels = concat(var.notification_channels, google_monitoring_notification_channel.email[*].name)
}

resource "google_monitoring_notification_channel" "email" {
  count = var.alert_email == null ? 0 : 1

  project      = var.project_id
  display_name = "${local.name} alerts"
  type         = "email"
  labels       = { email_address = var.alert_email }
  user_labels  = var.labels

  depends_on = [google_project_service.needed]
}

resource "google_monitoring_alert_policy" "on_log" {
  for_each = local.log_alerts

  project               = var.project_id
  display_name          = "${local.name}: ${each.value.title}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = local.channels
  user_labels           = var.labels

  conditions {
    display_name = each.value.title

    condition_matched_log {
      filter = "${local.log} AND ${each.value.filter}"
      # The alert says whose run it was.
      label_extractors = local.single ? null : { tenant = "EXTRACT(labels.tenant)" }
    }
  }

  alert_strategy {
    # Every run says it again; one message a day is enough. Closed after a day without.
    notification_rate_limit {
      period = "86400s"
    }
    auto_close = "86400s"
  }

  documentation {
    mime_type = "text/markdown"
    content   = local.runbook[each.key]

    dynamic "links" {
      for_each = var.runbook_url[*]
      content {
        display_name = "Runbook"
        url          = "${links.value}#${each.key}"
      }
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_monitoring_alert_policy" "on_count" {
  for_each = local.count_alerts

  project               = var.project_id
  display_name          = "${local.name}: ${each.value.title}"
  combiner              = "AND"
  severity              = each.value.severity
  notification_channels = local.channels
  user_labels           = var.labels

  dynamic "conditions" {
    for_each = each.value.conditions
    content {
      display_name = conditions.key

      condition_threshold {
        filter          = "resource.type=\"cloud_run_revision\" AND ${conditions.value.filter}"
        comparison      = conditions.value.comparison
        threshold_value = conditions.value.threshold
        # Lets a run end that began on time.
        duration                = "600s"
        evaluation_missing_data = conditions.value.missing

        aggregations {
          alignment_period     = "${conditions.value.seconds}s"
          per_series_aligner   = "ALIGN_DELTA"
          cross_series_reducer = "REDUCE_SUM"
          group_by_fields      = local.single ? null : ["metric.label.tenant"]
        }
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = local.runbook[each.key]

    dynamic "links" {
      for_each = var.runbook_url[*]
      content {
        display_name = "Runbook"
        url          = "${links.value}#${each.key}"
      }
    }
  }
}

# The dashboard: one chart for runs by outcome, and the figures that belong together in one chart each.

locals {
  charts = {
    "Runs by outcome"            = ["runs"]
    "Lag of the cursor"          = ["cursor_lag_seconds"]
    "Backlog"                    = ["threats_left", "threats_covered", "threats_uncovered"]
    "Age of the backlog"         = ["oldest_backlog_seconds"]
    "Threats and reports, a run" = ["threats_new", "threats_fetched", "reports"]
    "Reports by kind, a run"     = ["threat_reports", "campaign_reports", "summaries"]
    "Throttled calls (429)"      = ["siem_429s", "forensics_429s"]
    "Gaps"                       = ["gaps"]
    "Age of the oldest gap"      = ["oldest_gap_seconds"]
    "Failures, a run"            = ["windows_failed", "threats_failed", "threats_given_up", "lost_intervals"]
    "Seconds, a run"             = ["seconds"]
  }
  lines = merge(
    { for name, metric in google_logging_metric.figure : name => { metric = metric.name, legend = name, reducer = "REDUCE_MEAN", by = [] } },
    # Of a state there is one a tenant.
    { for name in keys(local.state_figures) : name => {
      metric = google_logging_metric.figure[name].name, legend = "${name} $${metric.labels.tenant}", reducer = "REDUCE_MEAN", by = ["metric.label.tenant"]
    } if !local.single },
    { runs = { metric = google_logging_metric.runs.name, legend = "$${metric.labels.outcome}", reducer = "REDUCE_SUM", by = ["metric.label.outcome"] } },
  )
}

resource "google_monitoring_dashboard" "collector" {
  project = var.project_id

  dashboard_json = jsonencode({
    displayName = "Proofpoint TAP forensics${local.first_copy ? "" : " (${local.name})"}"
    # To look at one tenant alone.
    dashboardFilters = local.single ? [] : [{ labelKey = "tenant", filterType = "METRIC_LABEL" }]
    mosaicLayout = {
      columns = 48
      tiles = [
        for place, title in keys(local.charts) : {
          width  = 24
          height = 16
          xPos   = 24 * (place % 2)
          yPos   = 16 * floor(place / 2)
          widget = {
            title = title
            xyChart = {
              dataSets = [
                for line in local.charts[title] : {
                  plotType       = title == "Runs by outcome" ? "STACKED_BAR" : "LINE"
                  targetAxis     = "Y1"
                  legendTemplate = local.lines[line].legend
                  timeSeriesQuery = {
                    timeSeriesFilter = {
                      filter = "metric.type=\"logging.googleapis.com/user/${local.lines[line].metric}\" resource.type=\"cloud_run_revision\""
                      aggregation = {
                        alignmentPeriod    = "${local.period_seconds}s"
                        perSeriesAligner   = "ALIGN_DELTA"
                        crossSeriesReducer = local.lines[line].reducer
                        groupByFields      = local.lines[line].by
                      }
                    }
                  }
                }
              ]
              yAxis = { scale = "LINEAR" }
            }
          }
        }
      ]
    }
  })

  depends_on = [google_project_service.needed]
}
