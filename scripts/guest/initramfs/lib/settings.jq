# The agent settings as one line per fact, `<name> <value>`, in the order in
# which init deals with them. A network's value is its fields joined by |.
def or_dash: if . == null or . == "" then "-" else tostring end;

def network:
  .value as $n
  | [ .key, ($n.mac | or_dash | ascii_downcase), ($n.ip | or_dash),
      (if ($n.netmask // "") != "" then $n.netmask else $n.prefix | or_dash end),
      ($n.gateway | or_dash),
      (if $n.type == "dynamic" or $n.use_dhcp == true or ($n.ip // "") == "" then "dhcp" else "static" end),
      ($n.default // [] | any(. == "gateway")) ]
  | "network " + join("|");

# A path, or an object; the agents of virtio stemcells look for other keys in it than
# those of scsi stemcells.
def ephemeral:
  if type == "object"
  then [(if $resolution == "scsi" then "id", "volume_id" else "path" end) as $key
    | select((.[$key] // "") != "") | "\($key) \(.[$key])"] | first // "- -"
  else "path \(.)" end
  | "ephemeral " + .;

$settings[0]
| "settings \(tojson)",
  "agent-id \(.agent_id | or_dash)",
  ($metadata | fromjson? | ."public-keys"."0"."openssh-key" // empty | "ssh-key " + .),
  (.networks // {} | to_entries[] | select(.value.type != "vip") | network),
  (.disks.ephemeral // empty | ephemeral)
