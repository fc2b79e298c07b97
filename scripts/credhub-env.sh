#!/usr/bin/env bash
# Source it, `. scripts/credhub-env.sh`: points the credhub CLI of this shell at the CredHub of the Director, if it was
# made with bosh-deployment's uaa.yml and credhub.yml. BOSH_CREDS and BOSH_VARS are as in bosh-env.sh.

_credhub_env() {
  local here creds vars secret address credhub_ca uaa_ca
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || return
  creds=${BOSH_CREDS:-$here/bosh-creds.yml}
  vars=${BOSH_VARS:-$here/manifests/bosh-vars.yml}
  secret=$(bosh int "$creds" --path /credhub_admin_client_secret) || return
  credhub_ca=$(bosh int "$creds" --path /credhub_tls/ca) || return
  uaa_ca=$(bosh int "$creds" --path /uaa_ssl/ca) || return
  address=$(bosh int "$vars" --path /internal_ip) || return
  export CREDHUB_CLIENT=credhub-admin CREDHUB_SECRET=$secret CREDHUB_SERVER=https://$address:8844
  export CREDHUB_CA_CERT=$credhub_ca$'\n'$uaa_ca
}

_credhub_env || {
  echo "credhub-env.sh: nothing is set; was the Director made with uaa.yml and credhub.yml?" >&2
  unset -f _credhub_env
  # shellcheck disable=SC2317 # reached when it is run and not sourced
  return 1 2>/dev/null || exit 1
}
unset -f _credhub_env
