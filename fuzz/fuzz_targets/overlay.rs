#![no_main]

libfuzzer_sys::fuzz_target!(
    init: libvirt_bosh_cpi_fuzz::plant("overlay"),
    |input: &[u8]| libvirt_bosh_cpi_fuzz::run("overlay", input)
);
