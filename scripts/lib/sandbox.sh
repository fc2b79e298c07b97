# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by those who source it
# Sourced by demo and bench: a pool, a network and a cpi.json of their own on
# the system's libvirt, calls of the CPI into them, and what the guests say.
# What sandbox_open makes goes when the script ends, however that happens.

export LC_ALL=C LIBVIRT_DEFAULT_URI=qemu:///system PATH=$PATH:/usr/sbin:/sbin

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export CPI_TEST_CACHE=${CPI_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/libvirt-bosh-cpi}
cpi=${CPI:-${CARGO_TARGET_DIR:-$root/target}/release/cpi}
guest_image=$CPI_TEST_CACHE/guest/stemcell-qcow2/image
program=${0##*/}

# Set by sandbox_open.
name=     # of the pool and the network
directory=
subnet=   # the first three numbers of an IPv4 /24

# For those who make more networks: what is left of these goes, too.
own_networks=()

# Set by call.
result=   # JSON
micros=   # that the process took
calls=0
last_log=

fail() {
  echo "$program: $*" >&2
  if [ -n "$last_log" ] && [ -s "$last_log" ]; then
    echo "$program: the CPI's log of its last call:" >&2
    sed 's/^/  /' "$last_log" >&2
  fi
  exit 1
}

# Time in microseconds.
now() {
  echo "${EPOCHREALTIME/./}"
}

require() {
  local what
  for what in virsh jq ip; do
    command -v "$what" >/dev/null || fail "$what is not installed: run scripts/setup"
  done
  [ -x "$cpi" ] || fail "$cpi does not exist: run 'make build'"
  [ -r "$guest_image" ] || fail "the test stemcell $guest_image is not built: run scripts/setup"
  timeout 10 virsh version >/dev/null 2>&1 || fail "$LIBVIRT_DEFAULT_URI does not answer: run scripts/libvirtd"
}

# Everything named after this process, so that several may run at once.
sandbox_open() {
  require
  trap sandbox_close EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # Not in $TMPDIR or a home: QEMU's user must be able to get there.
  directory=$(mktemp -d "/var/tmp/cpi-$program-$$-XXXXXX")
  name=${directory##*/}
  chmod 755 "$directory"
  mkdir "$directory/pool" "$directory/console" "$directory/log"
  virsh -q pool-create-as "$name" dir --target "$directory/pool" >/dev/null
  open_network || fail "found no free IPv4 range for a network, the last error: $(cat "$directory/network.log")"
  jq -n --arg name "$name" --arg console "$directory/console" '{
    settings: {storage_pool_name: $name, network_name: $name, domain_type: "qemu", console_log_dir: $console},
    agent: {mbus: "nats://nats:secret@127.0.0.1:4222", ntp: ["time.example.com"]}
  }' >"$directory/cpi.json"
}

# A network that leads nowhere but to this host: no DHCP, no DNS, no routing.
open_network() {
  local candidate
  for candidate in 10.99.{1..5} 172.29.{1..5} 192.168.{1..5}; do
    # Somewhere in the range's third number, so that two at once rarely meet.
    candidate=${candidate%.*}.$((RANDOM % 250 + 2))
    overlaps_a_route "$candidate.0/24" && continue
    cat >"$directory/network.xml" <<XML
<network>
  <name>$name</name>
  <bridge name='cpi-${name##*-}' stp='off'/>
  <dns enable='no'/>
  <ip address='$candidate.1' netmask='255.255.255.0'/>
</network>
XML
    if virsh -q net-create "$directory/network.xml" >"$directory/network.log" 2>&1; then
      subnet=$candidate
      return
    fi
  done
  return 1
}

# Routes that lead everywhere, or to a half of everything, count for nothing.
overlaps_a_route() {
  local routes
  routes=$({ ip -4 route show table all root "$1"; ip -4 route show table all match "$1"; } |
    grep -vE '^([a-z]+ )?(default|[0-9.]+/[01])( |$)' || true)
  [ -n "$routes" ]
}

# Domains are told by our directory in their XML: a call that was cut off has
# not told us the cid of its VM.
sandbox_domains() {
  local uuid xml
  for uuid in $(virsh -q list --all --uuid); do
    # Somebody else's may just have gone.
    xml=$(virsh -q dumpxml "$uuid" 2>/dev/null) || continue
    [[ $xml != *"pool='$name'"* && $xml != *"$directory/"* ]] || echo "$uuid"
  done
}

sandbox_close() {
  local status=$? uuid network
  trap '' HUP INT TERM
  trap - EXIT
  set +e
  if [ -n "$directory" ]; then
    for uuid in $(sandbox_domains); do
      virsh -q destroy "$uuid" >/dev/null 2>&1
      virsh -q undefine "$uuid" >/dev/null || status=1
    done
    for network in "$name" "${own_networks[@]}"; do
      virsh -q net-info "$network" >/dev/null 2>&1 || continue
      virsh -q net-destroy "$network" >/dev/null 2>&1
      virsh -q net-undefine "$network" >/dev/null 2>&1
      ! virsh -q net-info "$network" >/dev/null 2>&1 || status=1
    done
    if virsh -q pool-info "$name" >/dev/null 2>&1; then
      virsh -q pool-destroy "$name" >/dev/null || status=1
    fi
    rm -rf "$directory"
    [ $status -lt 128 ] || echo "$program: stopped half-way; what it had made is gone" >&2
  fi
  exit "$status"
}

# call METHOD ARGUMENTS: one CPI call, as the Director makes it; ARGUMENTS is a
# JSON array. Sets result and micros. A call that answers with an error, or with
# no proper response, is the end.
call() {
  local request response started ended
  calls=$((calls + 1))
  last_log=$directory/log/$(printf '%03d' "$calls")-$1.log
  request=$(jq -nc --arg method "$1" --argjson arguments "$2" --arg id "$program-$calls" \
    '{method: $method, arguments: $arguments, api_version: 3, context: {director_uuid: "none", request_id: $id}}')
  started=${EPOCHREALTIME/./}
  # Ctrl-C goes to all processes of a terminal. The call may end, then we end.
  response=$(trap '' INT && exec "$cpi" --config "$directory/cpi.json" <<<"$request" 2>"$last_log") ||
    fail "$1: the CPI exited with status $?"
  ended=${EPOCHREALTIME/./}
  micros=$((ended - started))
  jq -e '(.log | type) == "string" and has("result") and has("error")' <<<"$response" >/dev/null 2>&1 ||
    fail "$1: this is no CPI response: $response"
  jq -e '.error == null' <<<"$response" >/dev/null ||
    fail "$1: $(jq -r '.error | "\(.type): \(.message)"' <<<"$response")"
  result=$(jq -c .result <<<"$response")
}

# expect FILTER [jq's options]: jq's FILTER must be true of the last result.
expect() {
  jq -e "${@:2}" "$1" <<<"$result" >/dev/null || fail "expected $*, got $result"
}

# vm_arguments STEMCELL_CID LAST_NUMBER_OF_THE_ADDRESS: the arguments of create_vm.
vm_arguments() {
  jq -nc --arg stemcell "$1" --arg subnet "$subnet" --arg number "$2" '["agent-\($number)", $stemcell,
    {cpu: 1, memory: 256, ephemeral_disk: 1024},
    {private: {type: "manual", ip: "\($subnet).\($number)", netmask: "255.255.255.0", gateway: "\($subnet).1",
      dns: ["\($subnet).1"], default: ["dns", "gateway"], cloud_properties: {}}},
    [], {bosh: {password: "*"}}]'
}

stemcell_arguments() {
  jq -nc --arg image "$1" --argjson disk "$2" '[$image, {name: "test-guest", version: "1", infrastructure: "openstack",
    disk: $disk, disk_format: "qcow2", container_format: "bare"}, {tags: {}}]'
}

# The guest's own lines on the console of VM $1, without the console's noise.
guest_lines() {
  tr -d '\r' <"$directory/console/$1.log" 2>/dev/null | sed -n 's/.*GUEST: //p'
}

# How much VM $1 has said so far.
guest_position() {
  guest_lines "$1" | wc -l
}

# guest_wait CID POSITION PATTERN SECONDS: prints the first line after POSITION
# that matches the extended regular expression.
guest_wait() {
  local deadline=$((SECONDS + $4))
  # awk reads all of it: the others in the pipe must not be cut off.
  until guest_lines "$1" | awk -v seen="$2" -v pattern="$3" \
    'NR > seen && !found && $0 ~ pattern { print; found = 1 } END { exit !found }'; do
    if [ $SECONDS -ge $deadline ]; then
      echo "$program: the console of VM $1 ends with:" >&2
      tail -n 15 "$directory/console/$1.log" 2>/dev/null | cut -c 1-200 | sed 's/^/  /' >&2
      fail "the guest did not say /$3/ within $4 s"
    fi
    sleep 0.1
  done
}
