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
      "GCS_BUCKET", "STATE_KEY", "TAP_PRINCIPAL", "TAP_PRINCIPAL_FILE", "TAP_SECRET", "TAP_SECRET_FILE", "TENANTS_DIR", "LOG_EXECUTION_ID"
    ])) == 0
    error_message = "The module itself sets GCS_BUCKET, STATE_KEY, LOG_EXECUTION_ID and the variables of the credentials."
  }

  validation {
    # Its address may hold a password, which would be in the Terraform state and in the environment.
    condition     = !anytrue([for name in keys(var.settings) : contains(["HTTPS_PROXY", "HTTPS_PROXY_FILE"], upper(name))])
    error_message = "Set proxy = true, and add the proxy's address as a version of its secret, instead of HTTPS_PROXY."
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

variable "proxy" {
  type        = bool
  default     = false
  description = "TAP is reached through an HTTP proxy. Its address, such as http://USER:PASSWORD@proxy.example.com:3128, is a version that you add to the secret tap-forensics-collector-proxy; see next_steps. NO_PROXY is one of the settings."
}

variable "schedule" {
  type        = string
  default     = "0 * * * *"
  description = "When to run, in cron's words, UTC: every hour, every N minutes (*/15 * * * *) or every N hours (0 */6 * * *)."

  validation {
    # The alerts count in runs missed, so the time between two runs must be told from it.
    condition     = can(regex(local.schedule_forms, var.schedule))
    error_message = "Give one of the forms M * * * *, */N * * * * and M */N * * * (N up to 10 hours)."
  }
}

variable "tenants" {
  type = map(object({
    schedule = optional(string)
  }))
  default     = {}
  description = "TAP tenants by name, such as { acme = {}, globex = { schedule = \"*/15 * * * *\" } }. Unset: the single one. Those without a schedule of their own take turns within the period of `schedule`."

  validation {
    condition     = alltrue([for name in keys(var.tenants) : can(regex("^[a-z0-9][a-z0-9-]{0,62}$", name))])
    error_message = "A tenant's name is 1 to 63 lower-case letters, digits and hyphens, the first no hyphen."
  }

  validation {
    condition     = alltrue([for tenant in values(var.tenants) : tenant.schedule == null ? true : can(regex(local.schedule_forms, tenant.schedule))])
    error_message = "Give a tenant's schedule one of the forms M * * * *, */N * * * * and M */N * * * (N up to 10 hours)."
  }

  validation {
    # https://cloud.google.com/scheduler/quotas: jobs a region, at most.
    condition     = length(var.tenants) <= 5000
    error_message = "Cloud Scheduler has at most 5,000 jobs a region; see deploy/README.md on more."
  }
}

variable "max_instances" {
  type        = number
  default     = 100
  description = "Runs at one time: at most this, and never more than there are tenants, since a second run of one would find the first one's lease and end."

  validation {
    condition     = var.max_instances >= 1
    error_message = "At least one."
  }
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
