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
  local started
  started=$(now)
  "${@:3}" >/dev/null 2>&1 </dev/null || fail "${*:3} failed"
  sample "$1" "$2" $(($(now) - started))
}

# answer WHAT SIDE CPI METHOD ARGUMENTS: a whole process of this executable, which answers a request.
answer() {
  local started
  jq -nc --arg method "$4" --argjson arguments "$5" \
    '{method: $method, arguments: $arguments, api_version: 3, context: {}}' >"$directory/request"
  started=$(now)
  "$3" --config "$directory/cpi.json" <"$directory/request" >"$directory/response" 2>"$directory/log/$1.log" ||
    fail "$1 by $3 failed"
  sample "$1" "$2" $(($(now) - started))
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

# row WHAT TARGET
row() {
  awk -v what="$1" -v target="$2" -v cpi="$(median "$1" cpi)" -v virsh="$(median "$1" virsh)" \
    -v start="$(median connect virsh)" 'BEGIN {
      printf "%-28s %9.1f %11.1f %6.2fx %13.1f %6.2fx  %s\n",
        what, cpi / 1000, virsh / 1000, cpi / virsh, (virsh + start) / 1000, cpi / (virsh + start), target
    }'
}
