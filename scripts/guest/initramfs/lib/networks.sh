# Sourced by init: configures the NICs by the settings' `networks`, each found by
# its MAC, and tells the result on the console.

# 255.255.255.0 -> 24, ffff:ffff:: -> 32; a plain number stays.
prefix_of() {
  local group number bits=0
  case $1 in
  *:*) for group in $(echo "$1" | tr : ' '); do count "$((0x$group))"; done ;;
  *.*) for group in $(echo "$1" | tr . ' '); do count "$group"; done ;;
  *) bits=$1 ;;
  esac
  echo "$bits"
}

count() {
  number=$1
  while [ "$number" -gt 0 ]; do
    bits=$((bits + (number & 1)))
    number=$((number >> 1))
  done
}

# Without a MAC (-) only a lone NIC will do.
nic_of() {
  local nic address
  set -- "$1" /sys/class/net/[!l]*
  if [ "$1" = - ]; then
    [ $# = 2 ] && [ -e "$2" ] && echo "${2##*/}"
    return
  fi
  for nic in /sys/class/net/[!l]*; do
    [ -e "$nic" ] || continue
    read -r address <"$nic/address"
    [ "$address" != "$1" ] || echo "${nic##*/}"
  done
}

# $1: a network as settings.jq writes it.
configure_network() {
  local name mac ip netmask gateway how default nic family address
  IFS='|' read -r name mac ip netmask gateway how default <<END
$1
END
  nic=$(nic_of "$mac")
  if [ -z "$nic" ]; then
    say "network $name no NIC with mac $mac"
    return
  fi
  read -r mac <"/sys/class/net/$nic/address"
  # No duplicate detection: the address is to be usable at once.
  echo 0 >"/proc/sys/net/ipv6/conf/$nic/accept_dad"
  ip link set "$nic" up
  if [ "$how" = dhcp ]; then
    udhcpc -i "$nic" -n -q -t 10 -T 1 -s /lib/udhcpc.script </dev/null >/run/udhcpc.log 2>&1
    address=$(ip -o -4 addr show dev "$nic" | awk '{ print $4; exit }')
  else
    case $ip in *:*) family=-6 ;; *) family=-4 ;; esac
    address=$ip/$(prefix_of "$netmask")
    ip $family addr add "$address" dev "$nic"
    if [ "$default" = true ] && [ "$gateway" != - ]; then
      ip $family route replace default via "$gateway" dev "$nic"
    fi
  fi
  say "network $name $mac $nic ${address:-no lease}"
}
