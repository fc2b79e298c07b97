#![no_main]

libfuzzer_sys::fuzz_target!(
    init: libvirt_bosh_cpi_fuzz::plant("firmware"),
    |input: &[u8]| libvirt_bosh_cpi_fuzz::run("firmware", input)
);
