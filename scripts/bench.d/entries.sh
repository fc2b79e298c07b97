# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # $primitives and so on: samples.sh, lib/sandbox.sh
# Sourced by bench: VMs on a network that serves DHCP, at addresses outside and inside its DHCP range.

# As operators have it: defined, with NAT. The last part of its addresses is for DHCP.
open_dhcp_network() {
  local candidate
  dhcp_network=$name-dhcp
  own_networks+=("$dhcp_network")
  for candidate in 10.98.{1..5} 172.28.{1..5}; do
    candidate=${candidate%.*}.$((RANDOM % 250 + 2))
    overlaps_a_route "$candidate.0/24" && continue
    cat >"$directory/dhcp-network.xml" <<XML
<network>
  <name>$dhcp_network</name>
  <forward mode='nat'/>
  <bridge name='cpd-${name##*-}' stp='off'/>
  <ip address='$candidate.1' netmask='255.255.255.0'><dhcp><range start='$candidate.100' end='$candidate.199'/></dhcp></ip>
</network>
XML
    virsh -q net-define "$directory/dhcp-network.xml" >/dev/null
    if virsh -q net-start "$dhcp_network" >"$directory/network.log" 2>&1; then
      dhcp_subnet=$candidate
      return
    fi
    virsh -q net-undefine "$dhcp_network" >/dev/null
  done
  fail "found no free IPv4 range for a network with DHCP, the last error: $(cat "$directory/network.log")"
}

# entries_vm_arguments LAST_NUMBER_OF_THE_ADDRESS
entries_vm_arguments() {
  vm_arguments "$stemcell" "$1" | jq -c --arg network "$dhcp_network" --arg subnet "$dhcp_subnet" --arg number "$1" \
    '.[3].private += {ip: "\($subnet).\($number)", gateway: "\($subnet).1", cloud_properties: {name: $network}}'
}

entries_cpi() {
  local which number
  for which in without with; do
    [ "$which" = with ] && number=$((100 + round)) || number=$((10 + round))
    cpi_sample create_vm "$(entries_vm_arguments "$number")" "create_vm-$which-entry"
    vm=$(jq -r '.[0]' <<<"$result")
    virsh -q dumpxml --inactive "$vm" >"$directory/domain.xml"
    settle
    some_time
    cpi_sample delete_vm "[\"$vm\"]" "delete_vm-$which-entry"
  done
}

# The same VMs, of the XML of the last one.
entries_virsh() {
  local which host mac
  for which in without with; do
    make_vm_by_virsh
    if [ "$which" = with ]; then
      mac=$(sed -n "s,.*<mac address='\(.*\)'/>.*,\1,p" "$directory/domain.xml")
      host="<host mac='$mac' name='$vm' ip='$dhcp_subnet.$((100 + round))'/>"
      work net-update "$dhcp_network" add ip-dhcp-host "$host" --live --config
    fi
    work start "$vm"
    worked "create_vm-$which-entry"
    settle
    some_time
    work destroy "$vm"
    work undefine "$vm"
    [ "$which" = without ] || work net-update "$dhcp_network" delete ip-dhcp-host "$host" --live --config
    for volume in boot ephemeral config; do work vol-delete "$vm-$volume" --pool "$name"; done
    worked "delete_vm-$which-entry"
  done
}

# What an entry alone takes, in each way that libvirt offers.
entry_ways() {
  local way host where
  host="<host mac='52:54:00:00:00:99' name='entry' ip='$dhcp_subnet.199'/>"
  for way in live config both; do
    case $way in
      both) where=(--live --config) ;;
      *) where=("--$way") ;;
    esac
    primitives=0
    work net-update "$dhcp_network" add ip-dhcp-host "$host" "${where[@]}"
    worked "entry-added-$way"
    work net-update "$dhcp_network" delete ip-dhcp-host "$host" "${where[@]}"
    worked "entry-removed-$way"
  done
}

entries_table() {
  local way
  [ -e "$directory/samples/entry-added-live.virsh" ] || return 0
  printf '%-28s %9s %11s\n' 'one entry by virsh, ms' added removed
  for way in live config both; do
    awk -v way="$way" -v added="$(median "entry-added-$way" virsh)" -v removed="$(median "entry-removed-$way" virsh)" \
      'BEGIN { printf "%-28s %9.1f %11.1f\n", way, added / 1000, removed / 1000 }'
  done
  echo
}
