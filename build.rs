//! Where the executable looks for libvirt.so.0 first: in the BOSH package it is in the directory `lib` beside `bin`.
//! Where there is none, as in target/, the loader takes the system's.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // DT_RPATH, not DT_RUNPATH: a user's LD_LIBRARY_PATH must not bring another library into the package.
    println!("cargo:rustc-link-arg-bin=cpi=-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib");
}
