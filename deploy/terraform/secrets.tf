# The credentials: mounted as files, their values never known to Terraform.

locals {
  # The single tenant's folder contains those of the tenants, and so would its feed: there is the one or the others.
  single = length(var.tenants) == 0
  blank  = " "
  # Cloud Run mounts each secret into a directory of its own.
  credentials = merge(
    { for name in ["principal", "secret"] : name => {
      secret_id = "${local.name}-${name}", directory = "/secrets/${name}", file = "value"
    } if local.single },
    { for name in keys(var.tenants) : "tenant/${name}" => {
      secret_id = "${local.name}-tenant-${name}", directory = "/tenants/${name}", file = "credentials.json"
    } },
    # Its address may hold a password.
    { for name in ["proxy"] : name => {
      secret_id = "${local.name}-${name}", directory = "/secrets/${name}", file = "value"
    } if var.proxy },
  )
  where_credentials_are = merge(
    { for name, path in {
      TAP_PRINCIPAL_FILE = "/secrets/principal/value", TAP_SECRET_FILE = "/secrets/secret/value"
    } : name => path if local.single },
    { for name, path in { TENANTS_DIR = "/tenants" } : name => path if !local.single },
    { for name, path in { HTTPS_PROXY_FILE = "/secrets/proxy/value" } : name => path if var.proxy },
  )
}

resource "google_secret_manager_secret" "credential" {
  for_each = local.credentials

  project   = var.project_id
  secret_id = each.value.secret_id
  labels    = var.labels

  # In one region, where the function is: no copy leaves it.
  replication {
    user_managed {
      replicas {
        location = var.region

        dynamic "customer_managed_encryption" {
          for_each = var.kms_key_name[*]
          content {
            kms_key_name = customer_managed_encryption.value
          }
        }
      }
    }
  }

  depends_on = [google_project_service.needed]
}

# A function cannot be deployed while a secret that it mounts has no version. A blank is taken as
# missing: until the real version is added, runs say so and call nobody. Leave it as version 1: once destroyed,
# it would be made again, as the latest.
resource "google_secret_manager_secret_version" "blank" {
  for_each = google_secret_manager_secret.credential

  secret                 = each.value.id
  secret_data_wo         = local.blank
  secret_data_wo_version = 1

  lifecycle {
    ignore_changes = [enabled] # it may be disabled
  }
}
