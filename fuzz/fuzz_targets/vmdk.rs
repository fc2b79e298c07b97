#![no_main]

libfuzzer_sys::fuzz_target!(
    init: libvirt_bosh_cpi_fuzz::plant("vmdk"),
    |input: &[u8]| libvirt_bosh_cpi_fuzz::run("vmdk", input)
);
