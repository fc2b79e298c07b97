# Shared by init and the commands in /bin.

# One write per line, so that lines of different processes don't mix.
say() {
  local up
  read -r up _ </proc/uptime
  echo "GUEST: $*" >/dev/console
  echo "$up $*" >>/run/guest.log
}

uptime_s() {
  local up
  read -r up _ </proc/uptime
  echo "${up%.*}"
}

# Prints the device of a disk, found the way the agent does, within 5 s:
#   path PATH      following links
#   id ID          /dev/disk/by-id/*ID, all dashes removed from ID
#   volume_id N    SCSI target N on the host that has a disk on target 0
#   serial SERIAL  /dev/disk/by-id/*SERIAL, for tests
find_disk() {
  local kind=$1 value=$2 deadline=$(($(uptime_s) + 5)) host found
  [ "$kind" != id ] || value=$(echo "$value" | tr -d -)
  while :; do
    case $kind in
    path) set -- "$value" ;;
    id | serial) set -- /dev/disk/by-id/*"$value" ;;
    volume_id)
      set -- /sys/bus/scsi/devices/*:0:0:0/block/sd*
      host=${1#/sys/bus/scsi/devices/}
      set -- "/sys/bus/scsi/devices/${host%%:*}:0:$value:0"/block/*
      [ ! -e "$1" ] || set -- "/dev/${1##*/}"
      ;;
    esac
    found=$(readlink -f "$1")
    if [ -b "$found" ]; then
      echo "$found"
      return 0
    fi
    [ "$(uptime_s)" -lt $deadline ] || return 1
    sleep 0.1
  done
}

need_id() {
  if [ -z "$1" ]; then
    echo "usage: ${0##*/} ID" >&2
    exit 2
  fi
}
