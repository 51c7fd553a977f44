variable "project" {
  type        = string
  description = "Id of the project that everything goes into."
}

variable "region" {
  type        = string
  description = "Region of the function, the schedule and the bucket, such as us-central1."
}

variable "bucket" {
  type        = string
  description = "Name for the bucket that SecOps reads. Names are shared by all of Google Cloud."

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9_-]{1,54}[a-z0-9]$", var.bucket))
    error_message = "Give 3 to 56 lower-case letters, digits, - and _: the bucket of the source is named BUCKET-source."
  }
}

variable "settings" {
  type        = map(string)
  default     = {}
  description = "The collector's own variables, such as { MAX_THREATS = \"1000\", EVENTS_PREFIX = \"tap-events\" }."

  validation {
    condition = length(setintersection(keys(var.settings), [
      "GCS_BUCKET", "STATE_KEY", "TAP_PRINCIPAL", "TAP_PRINCIPAL_FILE", "TAP_SECRET", "TAP_SECRET_FILE", "LOG_EXECUTION_ID"
    ])) == 0
    error_message = "The module itself sets GCS_BUCKET, STATE_KEY, LOG_EXECUTION_ID and the variables of the credentials."
  }

  validation {
    condition = alltrue([
      for name in ["GCS_PREFIX", "EVENTS_PREFIX"] :
      can(regex("^[^/]+(/[^/]+)*$", trim(lookup(var.settings, name, "named"), "/"))) &&
      !startswith("${trim(lookup(var.settings, name, "named"), "/")}/", "state/")
    ])
    error_message = "GCS_PREFIX and EVENTS_PREFIX each name a folder, and not state/: a feed would ingest the collector's state."
  }
}

variable "schedule" {
  type        = string
  default     = "0 * * * *"
  description = "When to run, in cron's words, UTC: every hour, every N minutes (*/15 * * * *) or every N hours (0 */6 * * *)."

  validation {
    # The alerts count in runs missed, so the time between two runs must be told from it.
    condition     = can(regex("^(\\d{1,2} \\* |\\*/\\d{1,2} \\* |\\d{1,2} \\*/([2-9]|10) )\\* \\* \\*$", var.schedule))
    error_message = "Give one of the forms M * * * *, */N * * * * and M */N * * * (N up to 10 hours)."
  }
}

variable "max_instances" {
  type        = number
  default     = 1
  description = "Runs at one time. One collector needs one: a second run would find the first one's lease and end."
}

variable "retention_days" {
  type        = number
  default     = null
  description = "Delete evidence objects of this age; the state is not touched. Unset: nothing is deleted."

  validation {
    condition     = var.retention_days == null ? true : var.retention_days >= 1
    error_message = "At least one day."
  }
}

variable "feed_service_account" {
  type        = string
  default     = null
  description = "Address that SecOps shows as the feed's service account; it gets its two roles on the bucket."
}

variable "secops" {
  type = object({
    instance = string
    location = string
    project  = optional(string)
  })
  default     = null
  description = "Customer id and location of the SecOps instance, to make the feeds as well; project where it is another."

  validation {
    condition     = var.secops == null || var.feed_service_account != null
    error_message = "Set feed_service_account too: a feed that may not read the bucket fails."
  }
}

variable "alert_email" {
  type        = string
  default     = null
  description = "Address that the alerts are sent to."
}

variable "notification_channels" {
  type        = list(string)
  default     = []
  description = "Notification channels that exist already, as projects/…/notificationChannels/…"
}

variable "runbook_url" {
  type        = string
  default     = null
  description = "Where your people read deploy/RUNBOOK.md; the alerts link to its paragraphs there."
}
