#!/usr/bin/env bash
# The pipeline for a single tenant by gcloud, as deploy/terraform makes it, less monitoring, deletion by age
# and feeds. For Cloud Shell, or wherever gcloud is signed in. What is there already is left as it is: a
# second run with the same options changes nothing.
#
#   deploy/quickstart.sh [options]
#     --project ID                    default: gcloud's own
#     --region REGION                 default: gcloud's functions/region, else us-central1
#     --bucket NAME                   default: PROJECT-tap-forensics
#     --schedule CRON                 default: "0 * * * *", UTC
#     --feed-service-account ADDRESS  gets its two roles on the bucket
#     --proxy                         TAP is reached through an HTTP proxy, whose address is a secret
#     --set NAME=VALUE                a variable of the collector, as MAX_THREATS=1000; may be repeated
#     --dry-run                       looks, and prints what it would do
#     --uninstall                     takes all away but the bucket with evidence and state
#
# Roles you need in the project (Owner has them all, and much more):
#   serviceusage.serviceUsageAdmin, storage.admin, pubsub.admin, secretmanager.admin, cloudfunctions.developer,
#   run.admin, cloudscheduler.admin, iam.serviceAccountCreator, iam.serviceAccountUser;
#   with --uninstall also iam.serviceAccountDeleter
set -euo pipefail

usage() { sed -n '/^#   deploy/,/^set /s/^# \{0,1\}//p' "$0"; }
# What you typed is wrong; what the machine or the project lacks.
fail() { echo "quickstart: $*" >&2 && exit 2; }
stop() { echo "quickstart: $*" >&2 && exit 1; }

checkout=$(cd "$(dirname "$0")/.." && pwd)
name=tap-forensics-collector
schedule='0 * * * *'
project='' region='' bucket='' feed='' proxy='' dry_run='' uninstall=''
prefix=tap-forensics events_prefix='' summaries_prefix=''
settings=()

while [ $# -gt 0 ]; do
  case $1 in
    --proxy) proxy=yes ;;
    --dry-run) dry_run=yes ;;
    --uninstall) uninstall=yes ;;
    --help | -h) usage && exit ;;
    --project | --region | --bucket | --schedule | --feed-service-account | --set)
      [ $# -gt 1 ] || fail "$1 needs a value"
      case $1 in
        --project) project=$2 ;;
        --region) region=$2 ;;
        --bucket) bucket=$2 ;;
        --schedule) schedule=$2 ;;
        --feed-service-account) feed=$2 ;;
        --set) settings+=("$2") ;;
      esac
      shift
      ;;
    *) usage >&2 && fail "unknown option $1" ;;
  esac
  shift
done

# The names of VARIABLES in settings.py, the one list of them; a test compares.
declared=$(sed -nE 's/^ *(Variable\()?"([A-Z][A-Z_]*)",.*/\2/p' "$checkout/tap_forensics/config/settings.py")
declared=" ${declared//$'\n'/ } "

# An empty array is unset to the bash of macOS, hence the + in each of these.
for setting in ${settings[@]+"${settings[@]}"}; do
  value=${setting#*=} && value=${value#/} && value=${value%/}
  case $setting in
    *'|'* | *$'\n'*) fail "the value of ${setting%%=*} may contain neither | nor a line break" ;;
    GCS_PREFIX=*) prefix=$value ;;
    EVENTS_PREFIX=*) events_prefix=$value ;;
    SUMMARIES_PREFIX=*) summaries_prefix=$value ;;
    GCS_BUCKET=* | STATE_KEY=* | LOG_EXECUTION_ID=* | TAP_PRINCIPAL=* | TAP_SECRET=* | TAP_*_FILE=*) fail "${setting%%=*} is set by this script" ;;
    HTTPS_PROXY=* | HTTPS_PROXY_FILE=* | https_proxy=*) fail "give --proxy, and the proxy's address as a secret, instead of ${setting%%=*}" ;;
    TENANTS_DIR=*) fail "many tenants need Terraform: see deploy/README.md" ;;
    *=*) ;;
    *) fail "--set takes NAME=VALUE" ;;
  esac
  variable=${setting%%=*}
  case $variable in *[!A-Z_]*) known='' ;; *) known=$declared ;; esac
  case $known in
    *" $variable "*) ;;
    *) fail "the collector has no variable $variable: see docs/reference/settings.md" ;;
  esac
done
case $prefix/ in /) fail "GCS_PREFIX names a folder" ;; esac
for folder in "$prefix" "$events_prefix" "$summaries_prefix"; do
  case $folder/ in
    state/*) fail "state/ is no folder for a feed: it would ingest the state" ;;
    *//* | *[\"\\]*) fail "a folder has no empty parts (//), no \" and no \\: $folder" ;;
  esac
done

command -v gcloud >/dev/null ||
  stop "gcloud was not found: install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install), or use Cloud Shell"
command -v python3 >/dev/null || stop "python3 was not found: it packs the source; install it, or use Cloud Shell"
export CLOUDSDK_CORE_DISABLE_PROMPTS=1
project=${project:-$(gcloud config get-value project 2>/dev/null)}
[ -n "$project" ] || fail "no project: give --project, or set one with: gcloud config set project ID"
export CLOUDSDK_CORE_PROJECT=$project
gcloud auth print-access-token >/dev/null 2>&1 ||
  stop "gcloud is not signed in, or its sign-in has expired: run gcloud auth login, then this again"
region=${region:-$(gcloud config get-value functions/region 2>/dev/null)}
region=${region:-us-central1}
bucket=${bucket:-$project-tap-forensics}
account=$name-sa@$project.iam.gserviceaccount.com
principal_secret=$name-principal
secret_secret=$name-secret
proxy_secret=$name-proxy
secrets=("$principal_secret" "$secret_secret")
if [ -n "$proxy" ]; then secrets+=("$proxy_secret"); fi

step() { printf '\n== %s\n' "$*"; }
run() {
  printf '   %q' "$1" && printf ' %q' "${@:2}" && echo
  [ -n "$dry_run" ] || "$@"
}
there() { "$@" >/dev/null 2>&1; }
kept() { echo "   there already: $*"; }

# grant MEMBER ROLE COMMAND… THING, as in: grant serviceAccount:a@b roles/x gcloud secrets -- my-secret
grant() {
  local member=$1 role=$2 thing=("${@:3}") place=()
  while [ "${thing[0]}" != -- ]; do place+=("${thing[0]}") && thing=("${thing[@]:1}"); done
  thing=("${thing[@]:1}")
  if "${place[@]}" get-iam-policy "${thing[@]}" --format='csv[no-heading](bindings.role,bindings.members)' \
    --flatten='bindings[].members[]' 2>/dev/null | grep -xF "$role,$member" >/dev/null; then
    kept "$role for $member"
  else
    run "${place[@]}" add-iam-policy-binding "${thing[@]}" --member="$member" --role="$role" --format=none
  fi
}

# grant_on_bucket MEMBER ROLE [FOLDER TITLE]: on all of the bucket, or on the objects in that folder
grant_on_bucket() {
  local expression='' condition=None what="$2 for $1"
  if [ $# -gt 2 ]; then
    expression="resource.name.startsWith(\"projects/_/buckets/$bucket/objects/$3/\")"
    condition="^|^expression=$expression|title=$4"
    what+=" in $3/"
  fi
  if grep -xF "$2|$1|$expression" <<<"$bucket_policy" >/dev/null; then
    kept "$what"
  else
    run gcloud storage buckets add-iam-policy-binding "gs://$bucket" --member="$1" --role="$2" \
      --condition="$condition" --format=none
  fi
}

services=(artifactregistry cloudbuild cloudfunctions cloudscheduler eventarc iam logging monitoring pubsub run secretmanager storage)

look_at_project() {
  number=$(gcloud projects describe "$project" --format='value(projectNumber)' 2>/dev/null) ||
    stop "project $project was not found, or you may not look at it: check its id, and your roles in it (--help lists them)"
  if [ "$(gcloud billing projects describe "$project" --format='value(billingEnabled)' 2>/dev/null)" = False ]; then
    billing_is_off
  fi
}

billing_is_off() {
  stop "billing is off for project $project: link a billing account (https://console.cloud.google.com/billing/linkedaccount?project=$project), then run this again"
}

enable_services() {
  local enabled missing=()
  enabled=$(gcloud services list --enabled --format='value(config.name)' 2>/dev/null) ||
    stop "the services of project $project cannot be listed: you need roles/serviceusage.serviceUsageAdmin in it"
  for service in "${services[@]}"; do
    grep -qx "$service.googleapis.com" <<<"$enabled" || missing+=("$service.googleapis.com")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    kept "all ${#services[@]}"
  elif ! run gcloud services enable "${missing[@]}" 2>"$temporary/refusal"; then
    if grep -qi billing "$temporary/refusal"; then billing_is_off; fi
    stop "these services are off and cannot be enabled by you: ${missing[*]}; ask for roles/serviceusage.serviceUsageAdmin in project $project, or have them enabled"
  fi
}

# Sets the project number of the bucket's owner; empty if there is no such bucket.
look_at_bucket() {
  owner=$(gcloud storage buckets describe "gs://$bucket" --raw --format='value(projectNumber)' 2>"$temporary/refusal") || owner=''
  if [ -n "$owner" ] && [ "$owner" != "$number" ]; then
    stop "gs://$bucket is in another project (number $owner): choose another name with --bucket"
  fi
  if [ -z "$owner" ] && [ -z "$dry_run" ] && ! grep -q 'not found: 404' "$temporary/refusal"; then
    stop "gs://$bucket cannot be looked at: all of Google Cloud shares bucket names, so choose another with --bucket; if it is yours, you need roles/storage.admin"
  fi
}

install() {
  local owner number pubsub_agent bucket_policy
  step "Project $project, region $region, bucket gs://$bucket"
  look_at_project
  pubsub_agent=serviceAccount:service-$number@gcp-sa-pubsub.iam.gserviceaccount.com

  step "Services"
  enable_services

  step "Bucket: uniform access, never public, versions kept for two weeks"
  look_at_bucket
  if [ -n "$owner" ]; then
    kept "gs://$bucket"
  else
    run gcloud storage buckets create "gs://$bucket" --location="$region" \
      --uniform-bucket-level-access --public-access-prevention
  fi
  if [ "$(gcloud storage buckets describe "gs://$bucket" --format='csv[no-heading](versioning_enabled,uniform_bucket_level_access,public_access_prevention)' 2>/dev/null)" = True,True,enforced ]; then
    kept "its settings"
  else
    local update=(--versioning --uniform-bucket-level-access --public-access-prevention)
    if [ -n "$owner" ] && [ -n "$(gcloud storage buckets describe "gs://$bucket" --format='value(lifecycle_config)')" ]; then
      echo "   its lifecycle rules stay as they are; add one that deletes noncurrent versions after 14 days"
    else
      echo '{"rule": [{"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": 14}}]}' >"$temporary/lifecycle.json"
      update+=(--lifecycle-file="$temporary/lifecycle.json")
    fi
    run gcloud storage buckets update "gs://$bucket" "${update[@]}"
  fi

  step "Topics: the trigger, and where events go that failed ten times"
  for topic in $name-trigger $name-dead-letter; do
    if there gcloud pubsub topics describe "$topic"; then kept "$topic"; else run gcloud pubsub topics create "$topic"; fi
  done
  if there gcloud pubsub subscriptions describe $name-dead-letter; then
    kept "its subscription"
  else
    run gcloud pubsub subscriptions create $name-dead-letter --topic=$name-dead-letter \
      --message-retention-duration=7d --expiration-period=never
  fi
  grant "$pubsub_agent" roles/pubsub.publisher gcloud pubsub topics -- $name-dead-letter

  step "Service account, with rights on single things only"
  if there gcloud iam service-accounts describe "$account"; then
    kept "$account"
  else
    run gcloud iam service-accounts create $name-sa --display-name="Proofpoint TAP forensics collector"
  fi
  bucket_policy=$(gcloud storage buckets get-iam-policy "gs://$bucket" --flatten='bindings[].members[]' \
    --format='value[separator="|"](bindings.role,bindings.members,bindings.condition.expression)' 2>/dev/null) || true
  # Lists the bucket, which tells a missing object from a forbidden one; creates and reads evidence; replaces its state.
  grant_on_bucket "serviceAccount:$account" roles/storage.legacyBucketReader
  for folder in "$prefix" ${events_prefix:+"$events_prefix"} ${summaries_prefix:+"$summaries_prefix"}; do
    grant_on_bucket "serviceAccount:$account" roles/storage.objectCreator "$folder" "A folder that a feed reads"
    grant_on_bucket "serviceAccount:$account" roles/storage.objectViewer "$folder" "A folder that a feed reads"
  done
  grant_on_bucket "serviceAccount:$account" roles/storage.objectUser "state/$prefix" "The state"
  if grep -xF "roles/storage.objectUser|serviceAccount:$account|" <<<"$bucket_policy" >/dev/null; then
    # An earlier version of this script gave it on all of the bucket.
    run gcloud storage buckets remove-iam-policy-binding "gs://$bucket" --member="serviceAccount:$account" \
      --role=roles/storage.objectUser --condition=None --format=none
  fi
  if [ -n "$feed" ]; then
    grant_on_bucket "serviceAccount:$feed" roles/storage.objectViewer
    grant_on_bucket "serviceAccount:$feed" roles/storage.legacyBucketReader
  fi

  step "Secrets, blank until you add the credentials"
  # A function cannot mount a secret that has no version; the collector takes a blank as missing.
  printf ' ' >"$temporary/blank"
  for secret in "${secrets[@]}"; do
    if there gcloud secrets describe "$secret"; then
      kept "$secret"
    else
      run gcloud secrets create "$secret" --replication-policy=automatic --data-file="$temporary/blank"
    fi
    grant "serviceAccount:$account" roles/secretmanager.secretAccessor gcloud secrets -- "$secret"
  done

  step "Function"
  local environment="GCS_BUCKET=$bucket|GCS_PREFIX=$prefix|STATE_KEY=state/$prefix/state.json"
  environment+="|TAP_PRINCIPAL_FILE=/secrets/principal/value|TAP_SECRET_FILE=/secrets/secret/value|LOG_EXECUTION_ID=true"
  local mounts="/secrets/principal/value=$principal_secret:latest,/secrets/secret/value=$secret_secret:latest"
  if [ -n "$proxy" ]; then
    environment+="|HTTPS_PROXY_FILE=/secrets/proxy/value"
    mounts+=",/secrets/proxy/value=$proxy_secret:latest"
  fi
  for setting in ${settings[@]+"${settings[@]}"}; do
    case $setting in GCS_PREFIX=*) ;; *) environment+="|$setting" ;; esac
  done
  local deploy=(gcloud functions deploy "$name" --gen2 --region="$region" --runtime=python313 --entry-point=main
    --source="$checkout" --trigger-topic="$name-trigger" --trigger-location="$region" --retry
    --trigger-service-account="$account" --run-service-account="$account"
    --memory=512Mi --cpu=1 --timeout=540s --concurrency=1 --min-instances=0 --max-instances=1
    --ingress-settings=internal-only --no-allow-unauthenticated
    --set-env-vars="^|^$environment"
    --set-secrets="$mounts")
  # What was deployed is told by a label: the hash of the source and of this very command.
  local deployed
  python3 "$checkout/deploy/archive.py" "$temporary/source.zip"
  deployed=$({ cat "$temporary/source.zip" && printf '%s\n' "${deploy[@]##--source=*}"; } |
    python3 -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:32])')
  if [ "$(gcloud functions describe $name --gen2 --region="$region" --format='value(labels.deployed)' 2>/dev/null)" = "$deployed" ]; then
    kept "this very source and configuration"
  else
    run "${deploy[@]}" --update-labels="deployed=$deployed" --format=none
  fi
  grant "serviceAccount:$account" roles/run.invoker gcloud run services -- $name --region="$region"

  step "Dead letters of the trigger's subscription"
  local trigger subscription=''
  trigger=$(gcloud functions describe $name --gen2 --region="$region" --format='value(eventTrigger.trigger)' 2>/dev/null) || true
  if [ -n "$trigger" ]; then
    subscription=$(gcloud eventarc triggers describe "$trigger" --format='value(transport.pubsub.subscription)')
  fi
  if [ -z "$subscription" ]; then
    echo "   (the subscription is made with the function)"
  else
    grant "$pubsub_agent" roles/pubsub.subscriber gcloud pubsub subscriptions -- "$subscription"
    if [ "$(gcloud pubsub subscriptions describe "$subscription" --format='value(deadLetterPolicy.maxDeliveryAttempts)')" = 10 ]; then
      kept "its dead-letter policy"
    else
      run gcloud pubsub subscriptions update "$subscription" \
        --dead-letter-topic=$name-dead-letter --max-delivery-attempts=10
    fi
  fi

  step "Schedule: $schedule, UTC"
  local job=("$name-hourly" --location="$region" --schedule="$schedule" --time-zone=Etc/UTC --topic="$name-trigger"
    --message-body='{}' --format=none)
  case $(gcloud scheduler jobs describe $name-hourly --location="$region" --format='value(schedule)' 2>/dev/null) in
    "$schedule") kept $name-hourly ;;
    '') run gcloud scheduler jobs create pubsub "${job[@]}" --description="Starts a run of $name" ;;
    *) run gcloud scheduler jobs update pubsub "${job[@]}" ;;
  esac

  step "Left to do"
  cat <<EOT
   1. Add the credentials (typed or pasted, not shown; Enter ends each):
EOT
  for secret in "${secrets[@]}"; do
    echo "      read -rs v && printf %s \"\$v\" | gcloud secrets versions add $secret --project=$project --data-file=-; unset v"
  done
  cat <<EOT
   2. Force a run, and read its log:
      gcloud scheduler jobs run $name-hourly --project=$project --location=$region
      gcloud functions logs read $name --project=$project --region=$region --gen2
   3. Make the feed in SecOps (see deploy/README.md): Proofpoint Tap Forensics, gs://$bucket/$prefix/
EOT
  if [ -n "$events_prefix" ]; then echo "      and one more: Proofpoint Tap Alerts, gs://$bucket/$events_prefix/"; fi
  if [ -n "$summaries_prefix" ]; then echo "      and one more: PROOFPOINT_TAP_THREATS, gs://$bucket/$summaries_prefix/"; fi
}

# remove WHAT DESCRIBE… -- DELETE…
remove() {
  local what=$1 describe=() && shift
  while [ "$1" != -- ]; do describe+=("$1") && shift; done
  shift
  if there "${describe[@]}"; then run "$@"; else echo "   gone already: $what"; fi
}

uninstall() {
  step "Taking $name away from project $project, region $region"
  remove schedule gcloud scheduler jobs describe $name-hourly --location="$region" -- \
    gcloud scheduler jobs delete $name-hourly --location="$region"
  remove function gcloud functions describe $name --gen2 --region="$region" -- \
    gcloud functions delete $name --gen2 --region="$region"
  remove "dead letters" gcloud pubsub subscriptions describe $name-dead-letter -- \
    gcloud pubsub subscriptions delete $name-dead-letter
  for topic in $name-trigger $name-dead-letter; do
    remove "$topic" gcloud pubsub topics describe "$topic" -- gcloud pubsub topics delete "$topic"
  done
  for secret in $principal_secret $secret_secret $proxy_secret; do
    remove "$secret" gcloud secrets describe "$secret" -- gcloud secrets delete "$secret"
  done
  remove "service account" gcloud iam service-accounts describe "$account" -- \
    gcloud iam service-accounts delete "$account"
  step "Left as it is: evidence and state in gs://$bucket; to delete them too:"
  echo "   gcloud storage rm --recursive --all-versions gs://$bucket"
}

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
if [ -n "$uninstall" ]; then uninstall; else install; fi
if [ -n "$dry_run" ]; then step "Nothing was changed (--dry-run)"; fi
