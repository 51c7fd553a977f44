variable "project_id" {
  type        = string
  description = "Id of the project that everything goes into."

  validation {
    condition     = can(regex("^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "Give the project's id, not its name or number: 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  type        = string
  description = "Region of the function, the schedule, the secrets and the bucket, such as us-central1."

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "Give one region, such as us-central1; a function cannot be in a multi-region or a zone."
  }
}

variable "bucket" {
  type        = string
  description = "Name for the bucket that SecOps reads. Names are shared by all of Google Cloud."

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9_-]{1,54}[a-z0-9]$", var.bucket))
    error_message = "Give 3 to 56 lower-case letters, digits, - and _: the bucket of the source is named BUCKET-source."
  }
}

variable "name" {
  type        = string
  default     = "tap-forensics-collector"
  description = "First part of the names of all resources. Two copies in one project have different names and buckets."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "Give 2 to 24 lower-case letters, digits and hyphens, a letter first: an account is named NAME-build, and may have 30."
  }
}

variable "labels" {
  type        = map(string)
  default     = {}
  description = "Labels for everything that can have some, such as { team = \"soc\" }."

  validation {
    condition = length(var.labels) <= 64 && alltrue([
      for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))
    ])
    error_message = "Give at most 64 labels of lower-case letters, digits, - and _; a key begins with a letter, and each has at most 63 characters."
  }
}

variable "source_archive" {
  type        = string
  default     = null
  description = "Path of the function's source as a ZIP, made by deploy/archive.py. Unset: it is packed from the checkout that this module is in, which needs python3."

  validation {
    condition     = var.source_archive == null ? true : endswith(var.source_archive, ".zip") && fileexists(var.source_archive)
    error_message = "There is no such ZIP file; make it with: python3 deploy/archive.py FILE.zip"
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
      for name in ["GCS_PREFIX", "EVENTS_PREFIX", "SUMMARIES_PREFIX"] :
      can(regex("^[^/]+(/[^/]+)*$", trim(lookup(var.settings, name, "named"), "/"))) &&
      !startswith("${trim(lookup(var.settings, name, "named"), "/")}/", "state/")
    ])
    error_message = "GCS_PREFIX, EVENTS_PREFIX and SUMMARIES_PREFIX each name a folder, and not state/: a feed would ingest the collector's state."
  }

  validation {
    # Each folder that is set, with its slash, begins itself and no other.
    condition = alltrue([
      for one in ["GCS_PREFIX", "EVENTS_PREFIX", "SUMMARIES_PREFIX"] : length([
        for other in ["GCS_PREFIX", "EVENTS_PREFIX", "SUMMARIES_PREFIX"] : other
        if startswith(
          "${trim(lookup(var.settings, other, other == "GCS_PREFIX" ? "tap-forensics" : ""), "/")}/",
          "${trim(lookup(var.settings, one, one == "GCS_PREFIX" ? "tap-forensics" : "-"), "/")}/",
        )
      ]) <= 1
    ])
    error_message = "GCS_PREFIX, EVENTS_PREFIX and SUMMARIES_PREFIX are separate folders, none in another: a feed reads all of its folder as one log type."
  }
}

variable "proxy" {
  type        = bool
  default     = false
  description = "TAP is reached through an HTTP proxy. Its address, such as http://USER:PASSWORD@proxy.example.com:3128, is a version that you add to the secret NAME-proxy; see next_steps. NO_PROXY is one of the settings."
}

variable "vpc" {
  type = object({
    network    = optional(string)
    subnetwork = string
    tags       = optional(list(string), [])
  })
  default     = null
  description = "Network that the function's traffic leaves through (Direct VPC egress), such as { subnetwork = \"projects/…/subnetworks/…\" }: with the address of the network's Cloud NAT, which TAP or a firewall may expect. Unset: an address of Google's."

  validation {
    condition     = var.vpc == null ? true : can(regex("^(projects/[^/]+/regions/[^/]+/subnetworks/)?[a-z][a-z0-9-]{0,62}$", var.vpc.subnetwork))
    error_message = "Give the subnetwork's name, or projects/PROJECT/regions/REGION/subnetworks/NAME if it is in another project."
  }
}

variable "kms_key_name" {
  type        = string
  default     = null
  description = "Your own key, projects/…/locations/REGION/keyRings/…/cryptoKeys/…, for buckets, topics, secrets, images and the function. Google's service agents must be able to use it first; see README.md. Unset: keys of Google's."

  validation {
    condition     = var.kms_key_name == null ? true : can(regex("^projects/[^/]+/locations/${var.region}/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key_name))
    error_message = "Give projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY, without a version, in the same region as the rest."
  }
}

variable "schedule" {
  type        = string
  default     = "0 * * * *"
  description = "When to run, in cron's words, UTC: every hour, every N minutes (*/15 * * * *) or every N hours (0 */6 * * *)."

  validation {
    # The alerts count in runs missed, so the time between two runs must be told from it.
    condition     = can(regex(local.schedule_forms, var.schedule))
    error_message = "Give one of the forms M * * * *, */N * * * * and M */N * * * (M up to 59, N up to 59 minutes or 10 hours)."
  }
}

variable "tenants" {
  type = map(object({
    schedule  = optional(string)
    namespace = optional(string)
    labels    = optional(map(string), {})
    secops = optional(object({
      instance   = string
      location   = string
      project_id = optional(string)
    }))
  }))
  default     = {}
  description = "TAP tenants by name, such as { acme = {}, globex = { schedule = \"*/15 * * * *\" } }. Unset: the single one. Those without a schedule of their own take turns within the period of `schedule`. The rest is for their feeds: the namespace is the tenant's name, labels are added to those of `secops`, and the SecOps instance is that of `secops`, unless a tenant has its own."

  validation {
    condition     = alltrue([for name in keys(var.tenants) : can(regex("^[a-z0-9][a-z0-9-]{0,62}$", name))])
    error_message = "A tenant's name is 1 to 63 lower-case letters, digits and hyphens, the first no hyphen."
  }

  validation {
    condition     = alltrue([for tenant in values(var.tenants) : tenant.schedule == null ? true : can(regex(local.schedule_forms, tenant.schedule))])
    error_message = "Give a tenant's schedule one of the forms M * * * *, */N * * * * and M */N * * * (M up to 59, N up to 59 minutes or 10 hours)."
  }

  validation {
    condition     = alltrue([for tenant in values(var.tenants) : tenant.secops == null ? true : can(regex(local.instance_form, tenant.secops.instance)) && can(regex(local.location_form, tenant.secops.location))])
    error_message = "A tenant's secops has the customer id of its SecOps instance, as 11111111-2222-3333-4444-555555555555, and its location, as us."
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
    condition     = var.max_instances >= 1 && var.max_instances <= 1000 && floor(var.max_instances) == var.max_instances
    error_message = "Give a whole number from 1 to 1000."
  }
}

variable "retention_days" {
  type        = number
  default     = null
  description = "Delete evidence, events and summaries of this age; the state is not touched. Unset: nothing is deleted."

  validation {
    condition     = var.retention_days == null ? true : var.retention_days >= 1 && floor(var.retention_days) == var.retention_days
    error_message = "Give a whole number of days, at least 1."
  }
}

variable "feed_service_account" {
  type        = string
  default     = null
  description = "Address that SecOps shows as the service account of a feed that is made by hand, or that polls; it gets its two roles on the bucket."

  validation {
    condition     = var.feed_service_account == null ? true : can(regex("^[^@:\\s]+@[^@:\\s]+$", var.feed_service_account))
    error_message = "Give the address alone, as SecOps shows it: without serviceAccount: before it."
  }
}

variable "secops" {
  type = object({
    instance   = string
    location   = string
    project_id = optional(string)
    kind       = optional(string, "event_driven")
    namespace  = optional(string)
    labels     = optional(map(string), {})
  })
  default     = null
  description = "Customer id and location of the SecOps instance, to make the feeds as well; project_id if it is another. Kind: \"event_driven\" ingests within minutes; \"polling\" reads the bucket from time to time, and objects that are there already. Namespace and labels are put on what is ingested; tenants have a namespace each."

  validation {
    condition     = var.secops == null ? true : can(regex(local.instance_form, var.secops.instance)) && can(regex(local.location_form, var.secops.location))
    error_message = "Give the customer id of the SecOps instance, as 11111111-2222-3333-4444-555555555555, and its location, as us."
  }

  validation {
    condition     = var.secops == null ? true : contains(["event_driven", "polling"], var.secops.kind)
    error_message = "A feed is of kind \"event_driven\" or \"polling\"."
  }

  validation {
    condition     = var.secops == null ? true : var.secops.kind != "polling" || var.feed_service_account != null
    error_message = "Set feed_service_account too: a feed that polls and may not read the bucket fails."
  }
}

variable "alert_email" {
  type        = string
  default     = null
  description = "Address that the alerts are sent to."

  validation {
    condition     = var.alert_email == null ? true : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", var.alert_email))
    error_message = "Give one e-mail address."
  }
}

variable "notification_channels" {
  type        = list(string)
  default     = []
  description = "Notification channels that exist already, as projects/…/notificationChannels/…"

  validation {
    condition     = alltrue([for channel in var.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[^/]+$", channel))])
    error_message = "Give each as projects/PROJECT/notificationChannels/ID."
  }
}

variable "runbook_url" {
  type        = string
  default     = null
  description = "Where your people read deploy/RUNBOOK.md; the alerts link to its paragraphs there."

  validation {
    condition     = var.runbook_url == null ? true : can(regex("^https?://[^\\s#]+$", var.runbook_url))
    error_message = "Give an address with https://, without # and what follows it."
  }
}

locals {
  instance_form = "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"
  location_form = "^[a-z][a-z0-9-]+$"
}
