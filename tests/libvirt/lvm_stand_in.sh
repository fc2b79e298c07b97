#!/usr/bin/env bash
# What libvirtd's pools of type `logical` ask of LVM's commands, done without a device mapper: a logical volume is a file,
# seen as a block device through a loop device. Called by the name of the command, as /sbin/lvs, within a host of a test's
# own (lvm_host.rs), which fills in where the files are.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

group=@GROUP@
store=@STORE@
extent=$((4 << 20))
group_extents=@EXTENTS@

fail() {
  echo "  $1" >&2
  exit 5
}

unknown() {
  fail "the stand-in of ${0##*/} does not know: $*"
}

extents_used() {
  local bytes=0 file
  for file in "$store"/volumes/*; do
    bytes=$((bytes + $(stat -c %s "$file")))
  done
  echo $((bytes / extent))
}

# One line for each volume, all in one piece of one device.
list() {
  local node name size offset=0
  for node in "/dev/$group"/*; do
    name=${node##*/}
    # Made just now, or going.
    size=$(stat -c %s "$store/volumes/$name" 2>/dev/null) || continue
    echo "  $name##uuid-of-$name#/dev/cpi-stand-in($offset)#linear#1#$size#$extent#$size#-wi-a-----"
    offset=$((offset + size / extent))
  done
}

# The device stays for as long as a process of this host has it open, and no longer, however the host ends.
create() {
  local name='' kib='' file device extents free
  while [ $# -gt 0 ]; do
    case $1 in
      --name) name=$2 && shift ;;
      -L) kib=${2%K} && shift ;;
      --yes | "$group") ;;
      *) unknown "$@" ;;
    esac
    shift
  done
  file=$store/volumes/$name
  [ ! -e "$file" ] || fail "Logical Volume \"$name\" already exists in volume group \"$group\""
  extents=$(((kib * 1024 + extent - 1) / extent))
  free=$((group_extents - $(extents_used)))
  [ $extents -le $free ] ||
    fail "Volume group \"$group\" has insufficient free space ($free extents): $extents required."
  truncate -s $((extents * extent)) "$file"
  device=$(losetup --find --show "$file")
  exec 9<"$device"
  setsid sleep infinity 8<&- </dev/null >/dev/null 2>&1 &
  echo $! >"$store/holders/$name"
  # In use, so it is only marked to go with its last user.
  losetup --detach "$device"
  # As a new node has it.
  touch "$device"
  mkdir -p "/dev/$group"
  ln -s "../${device##*/}" "/dev/$group/$name"
}

# The file stays, as the blocks do on a real disk: with whatever is in them.
remove() {
  local name=${!#} file
  name=${name##*/}
  file=$store/volumes/$name
  [ -e "$file" ] || fail "Failed to find logical volume \"$group/$name\""
  rm "/dev/$group/$name"
  kill -KILL "$(cat "$store/holders/$name")"
  for _ in {1..100}; do
    if [ -z "$(losetup --associated "$file")" ]; then
      mv "$file" "$store/freed/$name"
      return
    fi
    sleep 0.05
  done
  fail "Logical volume $group/$name in use."
}

shopt -s nullglob
# Libvirt looks at one volume while it makes another.
exec 8<"$store"
flock 8
case ${0##*/} in
  pvs) echo "  /dev/cpi-stand-in $group" ;;
  vgs) echo "  $((group_extents * extent)):$(((group_extents - $(extents_used)) * extent))" ;;
  vgscan | vgchange | lvchange) ;;
  lvs) list ;;
  lvcreate) create "$@" ;;
  lvremove) remove "$@" ;;
  *) unknown "$@" ;;
esac
