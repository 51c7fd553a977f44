# Each example as its user would plan it.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

run "single_tenant" {
  command = plan
  module {
    source = "./examples/single-tenant"
  }
  variables {
    project_id  = "demo-project"
    alert_email = "soc@example.com"
  }

  assert {
    condition     = output.feeds == { PROOFPOINT_TAP_FORENSICS = "gs://demo-project-tap-forensics/tap-forensics/", PROOFPOINT_MAIL = "gs://demo-project-tap-forensics/tap-events/" }
    error_message = "Two feeds to make by hand."
  }
}

run "many_tenants" {
  command = plan
  module {
    source = "./examples/many-tenants"
  }
  variables {
    project_id             = "demo-project"
    secops_instance        = "11111111-2222-3333-4444-555555555555"
    globex_secops_instance = "99999999-2222-3333-4444-555555555555"
  }

  assert {
    condition     = strcontains(output.next_steps, "add globex")
    error_message = "Credentials to add for each tenant."
  }
}

run "company_network" {
  command = plan
  module {
    source = "./examples/company-network"
  }
  variables {
    project_id   = "demo-project"
    kms_key_name = "projects/keys/locations/us-east4/keyRings/ring/cryptoKeys/key"
  }

  assert {
    condition     = strcontains(output.next_steps, "versions add tap-forensics-collector-proxy")
    error_message = "The proxy's address is a secret to add."
  }
}
