#!/usr/bin/env bash
# Source it, `. scripts/bosh-env.sh`: points the bosh CLI of this shell at the Director that docs/INSTALL.md makes.
# BOSH_CREDS and BOSH_VARS name other files than bosh-creds.yml and manifests/bosh-vars.yml of this repository.

_bosh_env() {
  local here creds vars secret environment ca
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || return
  creds=${BOSH_CREDS:-$here/bosh-creds.yml}
  vars=${BOSH_VARS:-$here/manifests/bosh-vars.yml}
  # All or nothing: half an environment would speak to the wrong Director.
  secret=$(bosh int "$creds" --path /admin_password) || return
  ca=$(bosh int "$creds" --path /director_ssl/ca) || return
  environment=$(bosh int "$vars" --path /internal_ip) || return
  export BOSH_CLIENT=admin BOSH_CLIENT_SECRET=$secret BOSH_ENVIRONMENT=$environment BOSH_CA_CERT=$ca
}

_bosh_env || {
  echo "bosh-env.sh: nothing is set; is the Director made, and are BOSH_CREDS and BOSH_VARS its files?" >&2
  unset -f _bosh_env
  # shellcheck disable=SC2317 # reached when it is run and not sourced
  return 1 2>/dev/null || exit 1
}
unset -f _bosh_env
