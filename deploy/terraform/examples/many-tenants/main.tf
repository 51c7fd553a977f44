# Many TAP tenants from one function, as a service provider has them. Their feeds are made in SecOps.

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

variable "secops_instance" {
  type        = string
  description = "Customer id of your SecOps instance."
}

variable "globex_secops_instance" {
  type        = string
  description = "Customer id of the instance that globex has for itself."
}

provider "google" {
  project = var.project_id
  region  = "europe-west3"
}

module "tap_forensics" {
  # Elsewhere: "git::https://HOST/PATH.git//deploy/terraform?ref=vX.Y.Z"
  source = "../.."

  project_id = var.project_id
  region     = "europe-west3"
  bucket     = "${var.project_id}-tap-forensics"
  labels     = { service = "managed-soc" }

  settings = {
    EVENTS_PREFIX    = "tap-events"
    SUMMARIES_PREFIX = "tap-summaries"
  }

  secops = {
    instance = var.secops_instance
    location = "europe"
    labels   = { source = "tap" }
  }

  tenants = {
    acme = {}
    # Sooner, and into an instance of its own: its feeds' account reads the bucket, so all tenants trust it.
    globex = {
      schedule = "*/15 * * * *"
      secops   = { instance = var.globex_secops_instance, location = "europe" }
    }
    initech = {
      namespace = "initech-mail"
      labels    = { contract = "gold" }
    }
  }

  retention_days = 180
}

output "next_steps" {
  description = "What is left to do by hand."
  value       = module.tap_forensics.next_steps
}
