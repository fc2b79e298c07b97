# shellcheck shell=bash
# shellcheck disable=SC2154 # $directory and so on: lib/sandbox.sh
# Sourced by bench: taking samples, and tables of them.

load() {
  cut -d ' ' -f 1 /proc/loadavg
}

# sample WHAT SIDE MICROSECONDS
sample() {
  echo "$3" >>"$directory/samples/$1.$2"
}

# cpi_sample METHOD ARGUMENTS [WHAT]
cpi_sample() {
  call "$1" "$2"
  sample "${3-$1}" cpi "$micros"
}

# wall WHAT SIDE COMMAND...: a whole process, its start included.
wall() {
  local started=${EPOCHREALTIME/./}
  "${@:3}" >/dev/null 2>&1 </dev/null || fail "${*:3} failed"
  sample "$1" "$2" $((${EPOCHREALTIME/./} - started))
}

# answer WHAT SIDE CPI METHOD ARGUMENTS: a whole process of this executable, which answers a request.
answer() {
  local started ended
  jq -nc --arg method "$4" --argjson arguments "$5" \
    '{method: $method, arguments: $arguments, api_version: 3, context: {}}' >"$directory/request"
  # Not onto the disk: to truncate a file that was just written can mean to wait for the disk.
  rm -f "$directory/response" "$directory/log/$1.log"
  started=${EPOCHREALTIME/./}
  "$3" --config "$directory/cpi.json" <"$directory/request" >"$directory/response" 2>"$directory/log/$1.log" ||
    fail "$1 by $3 failed"
  ended=${EPOCHREALTIME/./}
  sample "$1" "$2" $((ended - started))
  jq -e '.error == null' "$directory/response" >/dev/null || fail "$1 by $3: $(<"$directory/response")"
}

# work COMMAND...: a virsh command; what it took without virsh's start and
# connection (virsh itself tells that) is added to primitives.
work() {
  local said
  said=$(virsh -q -t "$@" 2>&1) || fail "virsh $*: $said"
  primitives=$((primitives + $(sed -n 's/^(Time: \([0-9]*\)\.\([0-9]*\) ms)$/\1\2/p' <<<"$said" | tail -n 1)))
}

# What virsh's commands have taken since the last `worked`, in microseconds.
primitives=0

# worked WHAT: what was done since the last time is virsh's sample.
worked() {
  sample "$1" virsh "$primitives"
  primitives=0
}

# repeat ROUNDS WHAT: the functions WHAT_cpi and WHAT_virsh, in turns first and second, the CPI's in the first round.
repeat() {
  for ((round = 1; round <= $1; round++)); do
    primitives=0
    if [ $((round % 2)) = 1 ]; then "$2_cpi"; "$2_virsh"; else "$2_virsh"; "$2_cpi"; fi
  done
}

# After an upload libvirt reads the whole pool anew, and refuses changes meanwhile.
settle() {
  until virsh -q pool-refresh "$name" >/dev/null 2>&1; do sleep 0.02; done
}

# median WHAT SIDE: microseconds
median() {
  sort -n "$directory/samples/$1.$2" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

# row WHAT TARGET: nothing for what was not measured.
row() {
  [ -e "$directory/samples/$1.cpi" ] || return 0
  awk -v what="$1" -v target="$2" -v cpi="$(median "$1" cpi)" -v virsh="$(median "$1" virsh)" \
    -v start="$(median connect virsh)" 'BEGIN {
      printf "%-28s %9.1f %11.1f %6.2fx %13.1f %6.2fx  %s\n",
        what, cpi / 1000, virsh / 1000, cpi / virsh, (virsh + start) / 1000, cpi / (virsh + start), target
    }'
}

methods_table() {
  local what
  echo "Medians in ms. \"work\": virsh's commands without its start and connection;"
  echo "\"+ start\": with one start and connection, as any process has them."
  echo
  printf '%-28s %9s %11s %7s %13s %7s  %s\n' '' cpi 'virsh: work' ratio '+ start' ratio target
  for what in create_stemcell create_vm delete_vm attach_disk detach_disk update_disk snapshot_disk snapshot_disk-live \
    create_network delete_network; do
    row "$what" '1.25x of work'
  done
  for what in {create_vm,delete_vm}-{without,with}-entry; do
    row "$what" '1.25x of work'
  done
  for what in delete_stemcell reboot_vm set_vm_metadata calculate_vm_cloud_properties create_disk delete_disk has_disk \
    get_disks resize_disk set_disk_metadata delete_snapshot; do
    row "$what" '1.25x with one start'
  done
}
