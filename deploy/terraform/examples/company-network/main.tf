# A company's rules: traffic leaves through the own network, with one fixed address; data is encrypted with the own
# key; TAP is reached through a proxy; labels for the accounts.

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

variable "kms_key_name" {
  type        = string
  description = "Key in us-east4 that Google's service agents may use; ../../README.md lists them."
}

variable "source_archive" {
  type        = string
  default     = null
  description = "The source as your pipeline packed and checked it; unset: this checkout's."
}

locals {
  region = "us-east4"
}

provider "google" {
  project = var.project_id
  region  = local.region
}

# Most companies have a network, and then need its subnetwork's name only.
resource "google_compute_network" "egress" {
  #checkov:skip=CKV2_GCP_18:Nothing in this network listens, and without a rule nothing comes in.
  project                 = var.project_id
  name                    = "tap-forensics"
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "egress" {
  #checkov:skip=CKV_GCP_26:Flow logs cost; turn them on if your rules ask for them.
  #checkov:skip=CKV_GCP_76:The network has no IPv6.
  project       = var.project_id
  region        = local.region
  name          = "tap-forensics"
  network       = google_compute_network.egress.id
  ip_cidr_range = "10.20.30.0/26"
  # Cloud Storage, Secret Manager and logging stay inside Google's network.
  private_ip_google_access = true
}

resource "google_compute_router" "egress" {
  project = var.project_id
  region  = local.region
  name    = "tap-forensics"
  network = google_compute_network.egress.id
}

resource "google_compute_address" "egress" {
  project = var.project_id
  region  = local.region
  name    = "tap-forensics"
}

resource "google_compute_router_nat" "egress" {
  project                            = var.project_id
  region                             = local.region
  name                               = "tap-forensics"
  router                             = google_compute_router.egress.name
  nat_ip_allocate_option             = "MANUAL_ONLY"
  nat_ips                            = [google_compute_address.egress.self_link]
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = google_compute_subnetwork.egress.id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }
}

module "tap_forensics" {
  # Elsewhere: "git::https://HOST/PATH.git//deploy/terraform?ref=vX.Y.Z"
  source = "../.."

  project_id     = var.project_id
  region         = local.region
  bucket         = "${var.project_id}-tap-forensics"
  labels         = { team = "soc", cost-center = "cc-1234" }
  source_archive = var.source_archive
  kms_key_name   = var.kms_key_name
  vpc            = { subnetwork = google_compute_subnetwork.egress.id }
  # Its address becomes a secret; next_steps has the command.
  proxy = true

  notification_channels = ["projects/${var.project_id}/notificationChannels/1234567890"]
  runbook_url           = "https://wiki.example.com/tap-forensics"
}

output "next_steps" {
  description = "What is left to do by hand."
  value       = module.tap_forensics.next_steps
}

output "address" {
  description = "Where the function's traffic comes from."
  value       = google_compute_address.egress.address
}
