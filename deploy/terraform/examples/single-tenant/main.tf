# One TAP tenant, with alerts by e-mail.

terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 8.7, < 9"
    }
  }
}

variable "project_id" {
  type        = string
  description = "Id of the project that everything goes into."
}

variable "alert_email" {
  type        = string
  description = "Address that the alerts are sent to."
}

provider "google" {
  project = var.project_id
  region  = "us-central1"
}

module "tap_forensics" {
  # Elsewhere: "git::https://HOST/PATH.git//deploy/terraform?ref=vX.Y.Z"
  source = "../.."

  project_id  = var.project_id
  region      = "us-central1"
  bucket      = "${var.project_id}-tap-forensics"
  alert_email = var.alert_email

  settings = {
    EVENTS_PREFIX = "tap-events"
  }
}

output "next_steps" {
  description = "What is left to do by hand."
  value       = module.tap_forensics.next_steps
}

output "feeds" {
  description = "What to enter in SecOps."
  value       = module.tap_forensics.feeds
}
