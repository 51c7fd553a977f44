# The bucket that SecOps reads, and the bucket of the function's source.

resource "google_storage_bucket" "evidence" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs tell who read what, where the project turns data access logs on.
  project                     = var.project_id
  name                        = var.bucket
  location                    = var.region
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # A state that was lost or spoilt can be brought back.
  versioning {
    enabled = true
  }

  dynamic "encryption" {
    for_each = var.kms_key_name[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  # The state is rewritten all the time; two weeks of its past are enough.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 14
    }
  }

  dynamic "lifecycle_rule" {
    for_each = var.retention_days[*]
    content {
      action {
        type = "Delete"
      }
      condition {
        age            = lifecycle_rule.value
        with_state     = "LIVE"
        matches_prefix = [for prefix in compact([local.prefix, local.events_prefix, local.summaries_prefix]) : "${prefix}/"]
      }
    }
  }

  depends_on = [google_project_service.needed]
}

# Apart from the evidence, so that the collector, which writes there, cannot write its own source.
resource "google_storage_bucket" "source" {
  #checkov:skip=CKV_GCP_62:It holds the source of this checkout, written by Terraform alone.
  project                     = var.project_id
  name                        = "${var.bucket}-source"
  location                    = var.region
  labels                      = var.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # holds nothing that is not in this checkout

  versioning {
    enabled = true
  }

  dynamic "encryption" {
    for_each = var.kms_key_name[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.needed]
}

locals {
  checkout = "${path.module}/../.."

  # The same rule as in archive.py and in .gcloudignore.
  source_files = sort([
    for file in setunion(
      ["main.py", "requirements.txt"],
      fileset(local.checkout, "tap_forensics/**/*.py"),
      fileset(local.checkout, "tap_forensics/**/py.typed"),
    ) : file if !startswith(file, "tap_forensics/audit/") && !startswith(file, "tap_forensics/sandbox/") && !startswith(file, "tap_forensics/cli/") && !startswith(file, "tap_forensics/report/") && !startswith(file, "tap_forensics/secops/") && file != "tap_forensics/__main__.py"
  ])
  packed_here = var.source_archive == null
  source_hash = substr(local.packed_here ? sha256(join("\n", [
    for file in local.source_files : "${file} ${filesha256("${local.checkout}/${file}")}"
  ])) : filesha256(var.source_archive), 0, 16)
  source_archive = local.packed_here ? abspath("${path.root}/.terraform/${local.name}-${local.source_hash}.zip") : var.source_archive
}

# Without source_archive, the checkout that this module is in is packed.
resource "terraform_data" "source_archive" {
  count = local.packed_here ? 1 : 0

  triggers_replace = local.source_hash

  provisioner "local-exec" {
    command     = "python3 ../archive.py \"$ARCHIVE\""
    working_dir = path.module
    environment = { ARCHIVE = local.source_archive }
  }
}

resource "google_storage_bucket_object" "source" {
  bucket = google_storage_bucket.source.name
  # The name tells the content: changed source is a new object, and so a new revision.
  name   = "${local.name}-${local.source_hash}.zip"
  source = local.source_archive

  lifecycle {
    create_before_destroy = true
    # The archive is made where it is uploaded first and is missing on the next machine.
    ignore_changes = [source, detect_md5hash, source_md5hash]
  }

  depends_on = [terraform_data.source_archive]
}
