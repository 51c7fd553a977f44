terraform {
  # 1.11: arguments that are written and never stored, for what goes into Secret Manager.
  required_version = ">= 1.11"

  required_providers {
    google = {
      source = "hashicorp/google"
      # The version this was checked with; google_chronicle_feed is young.
      version = ">= 8.7, < 9"
    }
  }
}
