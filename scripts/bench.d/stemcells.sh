# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # $directory and so on: lib/sandbox.sh; $primitives: samples.sh
# Sourced by bench: stemcells, of every format.

large=$CPI_TEST_CACHE/bench/image

# A stemcell of the usual size: 480 MB of qcow2, about 175 MB gzipped. A third
# of the data does not compress, most of the rest does as text would.
make_large_stemcell() {
  local work part
  [ ! -s "$large" ] || return 0
  echo "bench: making a stemcell of 480 MB, once: $large"
  work=$directory/large
  mkdir -p "$work" "${large%/*}"
  for part in {1..30}; do
    head -c 2M /dev/urandom
    { base64 /dev/urandom || true; } 2>/dev/null | head -c 5M
    { yes "part $part of a file that compresses well" || true; } 2>/dev/null | head -c 9M
  done >"$work/root.raw" || true
  truncate -s 3G "$work/root.raw"
  qemu-img convert -O qcow2 "$work/root.raw" "$work/root.img"
  tar -C "$work" -c root.img | gzip >"$work/image"
  mv "$work/image" "$large.new"
  mv "$large.new" "$large"
  rm -rf "$work"
}

# The same disk as a raw one of 3 GB, gzipped, and as a VMDK in an OVA.
make_other_formats() {
  local work
  [ ! -s "${large%/*}/disk.vmdk" ] || [ ! -s "${large%/*}/image-ova" ] || return 0
  echo "bench: making it a raw disk and an OVA, once"
  work=$directory/formats
  mkdir -p "$work"
  tar -xOf "$large" root.img >"$work/root.img"
  qemu-img convert -O raw "$work/root.img" "$work/disk.raw"
  qemu-img convert -O vmdk -o subformat=streamOptimized "$work/root.img" "$work/disk.vmdk"
  tar --format=posix -C "$work" -c disk.raw | gzip -1 >"${large%/*}/image-raw"
  tar -C "$work" -cf "$work/ova" disk.vmdk
  mv "$work/disk.vmdk" "${large%/*}/disk.vmdk"
  mv "$work/ova" "${large%/*}/image-ova"
  rm -rf "$work"
}

stemcell_cpi() {
  cpi_sample create_stemcell "$(stemcell_arguments "$large" 3072)"
  settle
  cpi_sample delete_stemcell "[$result]"
}

stemcell_virsh() {
  local started
  started=$(now)
  gzip -dc "$large" | tar -xO root.img >"$directory/root.img"
  primitives=$(($(now) - started))
  work vol-create-as "$name" sc-virsh 3G --allocation 0 --format qcow2
  work vol-upload sc-virsh "$directory/root.img" --pool "$name"
  worked create_stemcell
  # Its record: the CPI deletes that too.
  virsh -q vol-create-as "$name" sc-virsh.record 4k --format raw >/dev/null
  settle
  work vol-delete sc-virsh --pool "$name"
  work vol-delete sc-virsh.record --pool "$name"
  worked delete_stemcell
  rm "$directory/root.img"
}

# decompress IMAGE: what has to be done before anything can be uploaded. Of an
# OVA, QEMU decompresses the VMDK.
decompress() {
  case $1 in
    *-ova) qemu-img convert -n -f vmdk --target-image-opts "${large%/*}/disk.vmdk" driver=null-co,size=3G ;;
    *) gzip -dc "$1" >/dev/null ;;
  esac
}

# upload WHAT IMAGE FORMAT: create_stemcell beside its two halves, each alone:
# decompressing the image, and virsh uploading what is stored in the end,
# without its zeros.
upload() {
  local started stemcell
  call create_stemcell "$(stemcell_arguments "$2" 3072)"
  sample "upload-$1" cpi "$micros"
  stemcell=$(jq -r . <<<"$result")
  started=$(now)
  decompress "$2"
  sample "upload-$1" decompress $(($(now) - started))
  primitives=0
  virsh -q vol-create-as "$name" sc-virsh 3G --allocation 0 --format "$3" >/dev/null
  work vol-upload sc-virsh "$directory/pool/$stemcell" --pool "$name" --sparse
  worked "upload-$1"
  virsh -q vol-delete sc-virsh --pool "$name" >/dev/null
  call delete_stemcell "[\"$stemcell\"]"
}

upload_formats() {
  upload qcow2 "$large" qcow2
  upload raw "${large%/*}/image-raw" raw
  upload ova "${large%/*}/image-ova" raw
}

# upload_row WHAT
upload_row() {
  awk -v what="$1" -v cpi="$(median "upload-$1" cpi)" -v decompress="$(median "upload-$1" decompress)" \
    -v virsh="$(median "upload-$1" virsh)" 'BEGIN {
      slower = decompress > virsh ? decompress : virsh
      printf "%-28s %9.1f %11.1f %13.1f %6.2fx  1.2x of the slower\n",
        what, cpi / 1000, decompress / 1000, virsh / 1000, cpi / slower
    }'
}

# The most memory that create_stemcell has at any time.
stemcell_memory() {
  local pid peak=0 key value
  call info '[]'
  jq -nc --argjson arguments "$(stemcell_arguments "$large" 3072)" \
    '{method: "create_stemcell", arguments: $arguments, api_version: 3, context: {}}' >"$directory/request"
  "$cpi" --config "$directory/cpi.json" <"$directory/request" >"$directory/response" 2>"$last_log" &
  pid=$!
  while read -r key value _; do
    [ "$key" != VmHWM: ] || peak=$value
  done < <(while kill -0 $pid && grep VmHWM "/proc/$pid/status"; do sleep 0.02; done 2>/dev/null)
  wait $pid || fail "create_stemcell failed"
  jq -e '.error == null' "$directory/response" >/dev/null || fail "create_stemcell: $(<"$directory/response")"
  peak_kib=$peak
  call delete_stemcell "[$(jq .result "$directory/response")]"
}

formats_table() {
  local what
  [ -n "${peak_kib-}" ] || return 0
  echo "create_stemcell by format, beside its two halves alone:"
  printf '%-28s %9s %11s %13s %7s  %s\n' '' cpi 'decompress' 'vol-upload' ratio target
  for what in qcow2 raw ova; do upload_row $what; done
  echo
  echo "create_stemcell's peak memory: $((peak_kib / 1024)) MiB resident (target: below 40)"
}
