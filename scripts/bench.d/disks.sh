# shellcheck shell=bash
# shellcheck disable=SC2154 # $directory and so on: lib/sandbox.sh
# Sourced by bench: persistent disks and their snapshots. Disks of 1 GiB, nearly empty.

# What the Director says of a snapshot.
about_snapshot='{"deployment": "bench", "job": "database", "index": 0, "director_name": "bench", "agent_id": "agent-10"}'

disk_cpi() {
  local disk snapshot
  cpi_sample create_disk '[1024, {}, null]'
  disk=$(jq -r . <<<"$result")
  cpi_sample has_disk "[\"$disk\"]"
  cpi_sample attach_disk "[\"$guest\", \"$disk\"]"
  wait_for_disk "$disk"
  cpi_sample get_disks "[\"$guest\"]"
  cpi_sample snapshot_disk "[\"$disk\", $about_snapshot]" snapshot_disk-live
  settle
  call delete_snapshot "[$result]"
  cpi_sample detach_disk "[\"$guest\", \"$disk\"]"
  cpi_sample resize_disk "[\"$disk\", 1100]"
  cpi_sample snapshot_disk "[\"$disk\", $about_snapshot]"
  snapshot=$result
  settle
  cpi_sample delete_snapshot "[$snapshot]"
  cpi_sample update_disk "[\"$disk\", 1100, {\"format\": \"qcow2\"}]"
  settle
  cpi_sample delete_disk "[$result]"
}

disk_virsh() {
  local disk
  disk=$(printf 'diskofvirsh%09d' "$round")
  cat >"$directory/disk.xml" <<XML
<disk type='volume' device='disk'><driver name='qemu' type='raw' discard='unmap'/>
  <source pool='$name' volume='$disk'/><target dev='vde' bus='virtio'/><serial>$disk</serial></disk>
XML
  work vol-create-as "$name" "$disk" 1G --allocation 0 --format raw
  worked create_disk
  work vol-info "$disk" --pool "$name"
  worked has_disk
  work attach-device "$guest" "$directory/disk.xml" --live --config
  worked attach_disk
  wait_for_disk "$disk"
  work domblklist "$guest" --details
  worked get_disks
  live_copy "$disk"
  work_record "snap-live$round"
  worked snapshot_disk-live
  settle
  virsh -q vol-delete snap-live"$round" --pool "$name" >/dev/null
  virsh -q vol-delete snap-live"$round.record" --pool "$name" >/dev/null
  work detach-device "$guest" "$directory/disk.xml" --live --config
  work_wait "virsh -q domblklist $guest | grep vde"
  worked detach_disk
  work vol-resize "$disk" 1100M --pool "$name"
  worked resize_disk
  work vol-clone "$disk" "snap$round" --pool "$name"
  work_record "snap$round"
  worked snapshot_disk
  settle
  work vol-delete "snap$round" --pool "$name"
  work vol-delete "snap$round.record" --pool "$name"
  worked delete_snapshot
  cat >"$directory/volume.xml" <<XML
<volume><name>$disk-new</name><capacity unit='MiB'>1100</capacity><target><format type='qcow2'/></target></volume>
XML
  work vol-create-from "$name" "$directory/volume.xml" "$disk" --inputpool "$name"
  work vol-delete "$disk" --pool "$name"
  work_record "$disk-new"
  worked update_disk
  settle
  work vol-delete "$disk-new" --pool "$name"
  work vol-delete "$disk-new.record" --pool "$name"
  worked delete_disk
}

# live_copy DISK: what QEMU copies while the guest runs.
live_copy() {
  work vol-create-as "$name" "snap-live$round" 1G --allocation 0 --format raw
  {
    echo "<domainbackup mode='push'><disks>"
    virsh -q domblklist "$guest" | awk '$1 != "vde" { print "<disk name=\"" $1 "\" backup=\"no\"/>" }'
    echo "<disk name='vde' backup='yes' type='file'><driver type='raw'/><target file='$directory/pool/snap-live$round'/></disk>"
    echo "</disks></domainbackup>"
  } >"$directory/backup.xml"
  work backup-begin "$guest" "$directory/backup.xml" --reuse-external
  work_wait "! virsh -q domjobinfo $guest | grep '^Job type: *None'"
}

# work_record WHAT: the small volume that the CPI keeps about a disk.
work_record() {
  echo "$about_snapshot" >"$directory/record"
  work vol-create-as "$name" "$1.record" "$(stat -c %s "$directory/record")b" --format raw
  work vol-upload "$1.record" "$directory/record" --pool "$name"
}

# work_wait CONDITION: as long as this is so. What virsh takes to look is not counted, but once.
work_wait() {
  local started
  started=$(now)
  while eval "$1" >"$directory/left" 2>&1; do
    sleep 0.02
    primitives=$((primitives + $(now) - started))
    started=$(now)
  done
}

# A guest that is still busy with a new disk lets go of it later.
wait_for_disk() {
  guest_wait "$guest" 0 "^disk-added virtio-$1 " 30 >/dev/null
}

# A record in place of another one.
disk_metadata_cpi() {
  [ -n "${described_disk-}" ] || {
    call create_disk '[1024, {}, null]'
    described_disk=$result
    call set_disk_metadata "[$described_disk, {\"deployment\": \"first\"}]"
  }
  settle
  cpi_sample set_disk_metadata "[$described_disk, {\"deployment\": \"bench\", \"round\": \"$round\"}]"
}

disk_metadata_virsh() {
  virsh -q vol-info described.record --pool "$name" >/dev/null 2>&1 || work_record described
  settle
  primitives=0
  work vol-delete described.record --pool "$name"
  work_record described
  worked set_disk_metadata
}
