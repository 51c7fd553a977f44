# Scheduler → Pub/Sub: one job for the single tenant, or one for each of the tenants.

locals {
  schedule_forms = "^(?:\\*/(?:[1-9]|[1-5][0-9]) \\*|[1-5]?[0-9] \\*|[1-5]?[0-9] \\*/(?:[2-9]|10)) \\* \\* \\*$"

  period_minutes = local.periods[var.schedule]
  # M * * * *: 60 minutes. */N * * * *: N. M */N * * *: 60 × N.
  periods = {
    for cron in distinct(concat([var.schedule], compact(values(var.tenants)[*].schedule))) :
    cron => startswith(cron, "*/") ? tonumber(regex("^\\*/(\\d+)", cron)[0]) : 60 * try(tonumber(regex("\\*/(\\d+)", cron)[0]), 1)
  }

  # The n-th of N in alphabetical order begins n/N of a period later than the first: so runs, and what they ask of
  # Google, are spread evenly. A tenant more moves the others by minutes, which loses nothing: a run reads from where
  # the last one ended.
  turns = { for place, name in keys(var.tenants) : name => floor(place * local.period_minutes / length(var.tenants)) }
  spread = {
    for name, minute in local.turns : name => (
      local.period_minutes < 60 ? "${minute}-59/${local.period_minutes} * * * *" :
      local.period_minutes == 60 ? "${minute} * * * *" :
      "${minute % 60} ${floor(minute / 60)}-23/${local.period_minutes / 60} * * *"
    )
  }

  jobs = merge(
    { for name in ["hourly"] : name => { schedule = var.schedule, message = "{}" } if local.single },
    { for name, tenant in var.tenants : "tenant-${name}" => {
      schedule = coalesce(tenant.schedule, local.spread[name])
      message  = jsonencode({ tenant = name })
    } },
  )
}

resource "google_cloud_scheduler_job" "start" {
  for_each = local.jobs

  project     = var.project_id
  region      = var.region
  name        = "${local.name}-${each.key}"
  description = "Starts a run of ${local.name}"
  schedule    = each.value.schedule
  time_zone   = "Etc/UTC"

  pubsub_target {
    topic_name = google_pubsub_topic.trigger.id
    data       = base64encode(each.value.message)
  }

  # A message before there is a subscription is lost.
  depends_on = [google_pubsub_subscription.trigger]
}
