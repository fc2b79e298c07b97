# shellcheck shell=bash
# shellcheck disable=SC2154 # $directory and so on: lib/sandbox.sh
# Sourced by bench: networks that the Director has made.

network_cpi() {
  local network
  cpi_sample create_network '[{"type": "manual", "netmask_bits": 28, "cloud_properties": {}}]'
  network=$(jq -r '.[0]' <<<"$result")
  own_networks+=("$network")
  virsh -q net-dumpxml --inactive "$network" >"$directory/created-network.xml"
  cpi_sample delete_network "[\"$network\"]"
}

# The same network, of the same XML, under another name: the CPI's is gone.
network_virsh() {
  local network=$name-created
  sed -e '/<uuid>/d' -e "s,<name>.*</name>,<name>$network</name>," "$directory/created-network.xml" \
    >"$directory/virsh-network.xml"
  own_networks+=("$network")
  work net-define "$directory/virsh-network.xml"
  work net-autostart "$network"
  work net-start "$network"
  worked create_network
  work net-destroy "$network"
  work net-undefine "$network"
  worked delete_network
}
