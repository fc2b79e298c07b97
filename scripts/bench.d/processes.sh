# shellcheck shell=bash
# shellcheck disable=SC2154 # $directory and so on: lib/sandbox.sh
# Sourced by bench: what it costs to start a process, and what the short calls take beyond that.

# Does nothing, with libvirt linked: what no caller of libvirt can be quicker than.
make_empty_program() {
  echo 'int main(void) { return 0; }' >"$directory/empty.c"
  cc -O2 "$directory/empty.c" -o "$directory/empty" -Wl,--no-as-needed -lvirt
}

# What the BOSH release brings along.
make_package() {
  "$root/scripts/release" --binary "$cpi" --into "$directory/package" >"$directory/release.log" ||
    fail "scripts/release failed: $(<"$directory/release.log")"
  packaged=$directory/package/bin/cpi
}

short_cpi() {
  answer has_vm cpi "$cpi" has_vm "[\"$guest\"]"
  answer info cpi "$cpi" info '[]'
  answer has_vm package "$packaged" has_vm "[\"$guest\"]"
  answer info package "$packaged" info '[]'
}

short_virsh() {
  wall has_vm virsh virsh domstate "$guest"
  wall info virsh "$directory/empty"
}

start_cpi() {
  wall start cpi "$cpi" --version
}

# Both are in all of virsh's times but in those of `work`.
start_virsh() {
  wall start virsh virsh --version
  wall connect virsh virsh uri
}

# count WHAT SIDE COMMAND...: instructions that it takes, of its threads together.
count() {
  local said
  said=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "${@:3}" 2>&1 >/dev/null <"$directory/request") ||
    fail "counting the instructions of ${*:3} failed: $said"
  sed -n 's/^==.*Collected : //p' <<<"$said" >"$directory/samples/$1.$2-instructions"
}

count_instructions() {
  local method
  for method in info has_vm; do
    jq -nc --arg method $method --arg guest "$guest" \
      '{method: $method, arguments: (if $method == "info" then [] else [$guest] end)}' >"$directory/request"
    count $method cpi "$cpi" --config "$directory/cpi.json"
    count $method package "$packaged" --config "$directory/cpi.json"
  done
  count info virsh "$directory/empty"
  count has_vm virsh virsh domstate "$guest"
}

# process_row WHAT VIRSH'S NAME TARGET
process_row() {
  awk -v what="$1" -v other="$2" -v target="$3" -v cpi="$(median "$1" cpi)" -v virsh="$(median "$1" virsh)" \
    -v package="$(median "$1" package)" 'BEGIN {
      printf "%-12s %8.1f %8.1f   %-32s %8.1f %6.2fx %6.2fx  %s\n",
        what, cpi / 1000, package / 1000, other, virsh / 1000, cpi / virsh, package / virsh, target
    }'
}

# instructions_row WHAT VIRSH'S NAME: in millions
instructions_row() {
  awk -v what="$1" -v other="$2" -v cpi="$(<"$directory/samples/$1.cpi-instructions")" \
    -v package="$(<"$directory/samples/$1.package-instructions")" \
    -v virsh="$(<"$directory/samples/$1.virsh-instructions")" 'BEGIN {
      printf "%-12s %8.1f %8.1f   %-32s %8.1f %6.2fx %6.2fx\n",
        what, cpi / 1e6, package / 1e6, other, virsh / 1e6, cpi / virsh, package / virsh
    }'
}

processes_table() {
  [ -e "$directory/samples/has_vm.package-instructions" ] || return 0
  echo "Whole processes, ms. \"package\": the executable with the library of the BOSH release."
  printf '%-12s %8s %8s   %-32s %8s %7s %7s  %s\n' '' cpi package 'beside' '' cpi package target
  process_row info 'an empty program with libvirt' 'package 4 ms, 0.33x'
  process_row has_vm 'virsh domstate' 'package 0.5x'
  awk -v cpi="$(median start cpi)" -v virsh="$(median start virsh)" \
    'BEGIN { printf "%-12s %8.1f %8s   %-32s %8.1f %6.2fx\n", "--version", cpi / 1000, "", "virsh --version", virsh / 1000, cpi / virsh }'
  echo
  echo "Instructions of the same, millions (callgrind)."
  instructions_row info 'an empty program with libvirt'
  instructions_row has_vm 'virsh domstate'
}
