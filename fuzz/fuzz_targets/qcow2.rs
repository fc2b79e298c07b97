#![no_main]

libfuzzer_sys::fuzz_target!(
    init: libvirt_bosh_cpi_fuzz::plant("qcow2"),
    |input: &[u8]| libvirt_bosh_cpi_fuzz::run("qcow2", input)
);
