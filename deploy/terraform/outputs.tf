output "feeds" {
  description = "What to enter in SecOps: log type and URI, with its closing slash."
  value = {
    for feed in local.feeds : feed.log_type => "gs://${google_storage_bucket.evidence.name}/${feed.prefix}/" if feed.tenant == null
  }
}

output "tenant_feeds" {
  description = "The same for each tenant."
  value = {
    for name in keys(var.tenants) : name => {
      for feed in local.feeds : feed.log_type => "gs://${google_storage_bucket.evidence.name}/${feed.prefix}/" if feed.tenant == name
    }
  }
}

output "bucket" {
  description = "The bucket with evidence and state."
  value       = google_storage_bucket.evidence.name
}

output "service_accounts" {
  description = "Who runs the function, who starts it, who builds it."
  value = {
    run   = google_service_account.collector.email
    push  = google_service_account.push.email
    build = google_service_account.build.email
  }
}

output "dashboard" {
  description = "The collector's dashboard in Cloud Monitoring."
  value       = "https://console.cloud.google.com/monitoring/dashboards?project=${var.project_id}"
}

output "next_steps" {
  description = "What is left to do by hand, in this order."
  value       = <<-EOT
    1. Add the credentials (typed or pasted, not shown; Enter ends each):

${local.how_to_add_credentials}
    2. Force a run and read its log:

       gcloud scheduler jobs run ${values(google_cloud_scheduler_job.start)[0].name} --project=${var.project_id} --location=${var.region}
       gcloud functions logs read ${local.name} --project=${var.project_id} --region=${var.region} --gen2

    3. Make the feeds in SecOps from the output "${local.single ? "feeds" : "tenant_feeds"}", unless secops made them; see deploy/README.md.
  EOT
}

locals {
  # The proxy's address is typed like a credential: a password may be in it.
  how_to_add_values = [
    for name in ["principal", "secret", "proxy"] :
    "       read -rs v && printf %s \"$v\" | gcloud secrets versions add ${local.credentials[name].secret_id} --project=${var.project_id} --data-file=-; unset v\n"
    if contains(keys(local.credentials), name)
  ]
  how_to_add_credentials = join("\n", concat(local.how_to_add_values, local.single ? [] : concat([
    "       add() { read -rp \"$1, principal: \" p && read -rsp \"$1, secret: \" s && echo &&",
    "         p=$p s=$s jq -n '{principal: env.p, secret: env.s}' | gcloud secrets versions add \"${local.name}-tenant-$1\" --project=${var.project_id} --data-file=-; unset p s; }",
    ], [for name in keys(var.tenants) : "       add ${name}"], [""])
  ))
}
