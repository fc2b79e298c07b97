#!/usr/bin/env bash
# Writes the private keys for SSH to VMs, each into a file here: vcap-private-key.pem for the user vcap of every VM that
# the CPI makes, and jumpbox-private-key.pem for the user jumpbox of the Director, if it was made with bosh-deployment's
# jumpbox-user.yml. BOSH_CREDS names another file than bosh-creds.yml of this repository.
set -euo pipefail

creds=${BOSH_CREDS:-$(dirname "${BASH_SOURCE[0]}")/../bosh-creds.yml}
umask 077

# write NAME PATH: a file that nobody else can read, whole or not at all.
write() {
  local key
  key=$(bosh int "$creds" --path "$2") || return
  rm -f "$1"
  printf '%s\n' "$key" >"$1"
  chmod 400 "$1"
  echo "$1"
}

write vcap-private-key.pem /vm_ssh_key/private_key
write jumpbox-private-key.pem /jumpbox_ssh/private_key ||
  echo "get-ssh-keys.sh: no key for jumpbox: the Director was made without jumpbox-user.yml" >&2
