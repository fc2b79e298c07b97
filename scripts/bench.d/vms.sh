# shellcheck shell=bash
# shellcheck disable=SC2154 # $directory and so on: lib/sandbox.sh
# Sourced by bench: VMs.

need_stemcell() {
  [ -z "${stemcell-}" ] || return 0
  call create_stemcell "$(stemcell_arguments "$guest_image" 64)"
  stemcell=$(jq -r . <<<"$result")
}

# A booted guest, for what needs one to answer.
need_guest() {
  [ -z "${guest-}" ] || return 0
  need_stemcell
  call create_vm "$(vm_arguments "$stemcell" 10)"
  guest=$(jq -r '.[0]' <<<"$result")
  guest_wait "$guest" 0 '^ready' 120 >/dev/null
}

vm_cpi() {
  cpi_sample create_vm "$(vm_arguments "$stemcell" $((10 + round)))"
  vm=$(jq -r '.[0]' <<<"$result")
  virsh -q dumpxml --inactive "$vm" >"$directory/domain.xml"
  settle
  some_time
  cpi_sample delete_vm "[\"$vm\"]"
}

# Libvirt waits until QEMU's process is gone, and not every machine's first process looks for dead ones at once: some
# do every second or two. Neither side shall always meet the same moment of that.
some_time() {
  sleep $((RANDOM % 2)).$((RANDOM % 10))
}

# Up to its start, the VM of domain.xml under another name.
make_vm_by_virsh() {
  local uuid old
  [ -s "$directory/1MiB" ] || head -c 1M /dev/zero >"$directory/1MiB"
  uuid=$(</proc/sys/kernel/random/uuid)
  old=$(sed -n 's,.*<uuid>\(.*\)</uuid>.*,\1,p' "$directory/domain.xml")
  sed "s/$old/$uuid/g" "$directory/domain.xml" >"$directory/virsh.xml"
  vm=vm-$uuid
  work vol-create-as "$name" "$vm-boot" 64M --allocation 0 --format qcow2 --backing-vol "$stemcell" --backing-vol-format qcow2
  work vol-create-as "$name" "$vm-ephemeral" 1G --allocation 0 --format raw
  work vol-create-as "$name" "$vm-config" 1M --allocation 0 --format raw
  work vol-upload "$vm-config" "$directory/1MiB" --pool "$name"
  work define "$directory/virsh.xml"
  work autostart "$vm"
}

# The same VM, of the same XML.
vm_virsh() {
  local volume
  make_vm_by_virsh
  work start "$vm"
  worked create_vm
  settle
  some_time
  work destroy "$vm"
  work undefine "$vm"
  for volume in boot ephemeral config; do work vol-delete "$vm-$volume" --pool "$name"; done
  worked delete_vm
}

# What is asked of, or written about, a VM that runs.
guest_cpi() {
  cpi_sample set_vm_metadata "[\"$guest\", {\"name\": \"job/$round\", \"director\": \"bench\", \"index\": \"$round\"}]"
  cpi_sample calculate_vm_cloud_properties '[{"cpu": 1, "ram": 256, "ephemeral_disk_size": 1024}]'
}

guest_virsh() {
  local vm_namespace=https://github.com/libvirt-bosh-cpi/vm/1.0
  work metadata "$guest" "$vm_namespace" --key bosh --live --config \
    --set "<vm><entry key='name'>job/$round</entry><entry key='director'>bench</entry></vm>"
  work desc "$guest" --title --live --config --new-desc "virsh/$round"
  worked set_vm_metadata
  work nodeinfo
  work maxvcpus --type qemu
  work pool-info "$name"
  worked calculate_vm_cloud_properties
}

# The guest need not come up in between.
reboot_cpi() {
  cpi_sample reboot_vm "[\"$guest\"]"
}

reboot_virsh() {
  work reset "$guest"
  worked reboot_vm
}
