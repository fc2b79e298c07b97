# The SBOM of the package, for scripts/release: $version, $crates (cargo metadata), $checksums (of Cargo.lock), $library (the
# SHA-256 of libvirt.so.0), $pins (of scripts/client-library).
def words: [splits(" +")];
def table: [split("\n")[] | select(. != "" and (startswith("#") | not)) | words];

def purl: "pkg:deb/debian/\(.[1])@\(.[2] | @uri)?arch=\(if .[0] == "source" then "source" else "amd64" end)&distro=\(.[3])";

($checksums | table | map({key: "\(.[0]) \(.[1])", value: .[2]}) | from_entries) as $sums
| ($crates | sort_by(.name, .version) | map(. + {purl: "pkg:cargo/\(.name)@\(.version)"})) as $crates
| ($pins | table | group_by(.[1])) as $packages
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {component: {
      type: "application", "bom-ref": "bin/cpi", name: "libvirt-bosh-cpi", version: $version,
      purl: "pkg:cargo/libvirt-bosh-cpi@\($version)", licenses: [{license: {id: "Apache-2.0"}}]
    }},
    components: (
      [{
        type: "library", "bom-ref": "lib/libvirt.so.0", name: "libvirt.so.0",
        version: ($packages[] | select(.[0][1] == "libvirt") | .[0][2]),
        hashes: [{alg: "SHA-256", content: $library}]
      }]
      + [$crates[] | {
        type: "library", "bom-ref": .purl, name, version, purl,
        licenses: (if .license then [{expression: (.license | gsub("/"; " OR "))}] else [] end),
        hashes: [{alg: "SHA-256", content: $sums["\(.name) \(.version)"]}]
      }]
      + [$packages[] | {
        type: "library", "bom-ref": (.[0] | purl), name: .[0][1], version: .[0][2], purl: (.[0] | purl),
        externalReferences: [.[] | {type: "distribution", url: "http://deb.debian.org/\(.[4])", hashes: [{alg: "SHA-256", content: .[5]}]}]
      }]
    ),
    dependencies: [
      {ref: "bin/cpi", dependsOn: (["lib/libvirt.so.0"] + [$crates[].purl])},
      {ref: "lib/libvirt.so.0", dependsOn: [$packages[] | .[0] | purl]}
    ]
  }
