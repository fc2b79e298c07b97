//! A guest of 64 bytes, for tests of many VMs: it is up as soon as its firmware is, needs next to no memory and CPU, and
//! lets go of disks as an operating system does. In firmware alone a guest never does.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::sandbox::run;

/// What it says on its console when it is up.
pub const UP: &str = "GUEST: ready";

/// The begin of a boot sector: it says the text at the address in bytes 6 and 7, a zero at its end, on the serial port.
#[rustfmt::skip]
const SAY: [u8; 31] = [
    0xfc,                   // cld
    0x31, 0xc0,             // xor ax, ax
    0x8e, 0xd8,             // mov ds, ax
    0xbe, 0x00, 0x00,       // mov si, text
    // next:
    0xac,                   // lodsb
    0x08, 0xc0,             // or al, al
    0x74, 0x12,             // jz up
    0x88, 0xc4,             // mov ah, al
    // full:                   the serial port has not sent the last byte yet
    0xba, 0xfd, 0x03,       // mov dx, 0x3fd
    0xec,                   // in al, dx
    0xa8, 0x20,             // test al, 0x20
    0x74, 0xf8,             // jz full
    0x88, 0xe0,             // mov al, ah
    0xba, 0xf8, 0x03,       // mov dx, 0x3f8
    0xee,                   // out dx, al
    0xeb, 0xe9,             // jmp next
    // up:
];

/// Eighteen times in a second, at each tick of the timer, it does what ACPI has guests do: reads which device it is
/// asked to let go of, and says that it does.
#[rustfmt::skip]
const LET_GO_OF_DISKS: [u8; 22] = [
    // up:
    0xfb,                   // sti
    0xf4,                   // hlt
    0xba, 0x10, 0xae,       // mov dx, 0xae10: the first PCI bus
    0x66, 0x31, 0xc0,       // xor eax, eax
    0x66, 0xef,             // out dx, eax
    0xba, 0x04, 0xae,       // mov dx, 0xae04: slots that are to be left
    0x66, 0xed,             // in eax, dx
    0xba, 0x08, 0xae,       // mov dx, 0xae08: slots that are left, the first of them
    0x66, 0xef,             // out dx, eax
    0xeb, 0xea,             // jmp up
];

/// It panics, as the kernel of an operating system does, and says so to the machine's `<panic model='isa'/>`.
#[rustfmt::skip]
pub const CRASH: [u8; 8] = [
    0xba, 0x05, 0x05,       // mov dx, 0x505
    0xb0, 0x01,             // mov al, 1
    0xee,                   // out dx, al
    0xfa,                   // cli
    0xf4,                   // hlt
];

/// It suspends the machine to memory (S3).
#[rustfmt::skip]
pub const SLEEP: [u8; 9] = [
    0xba, 0x04, 0x06,       // mov dx, 0x604
    0xb8, 0x00, 0x24,       // mov ax, 0x2400
    0xef,                   // out dx, ax
    0xfa,                   // cli
    0xf4,                   // hlt
];

/// The `image` of a stemcell with the tiny guest, made in this directory.
pub fn image(directory: &Path) -> String {
    image_of(directory, &LET_GO_OF_DISKS)
}

/// The same with a guest that does this once it is up.
pub fn image_of(directory: &Path, then: &[u8]) -> String {
    let mut disk = [&SAY, then].concat();
    let text = 0x7c00 + u16::try_from(disk.len()).unwrap();
    disk[6..8].copy_from_slice(&text.to_le_bytes());
    disk.extend(UP.bytes());
    disk.extend(b"\r\n\0");
    disk.resize(1 << 20, 0);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let directory = directory.join("tiny");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("root.img"), disk).unwrap();
    let image = directory.join("image").to_str().unwrap().to_owned();
    let directory = directory.to_str().unwrap();
    run("tar", &["-czf", &image, "-C", directory, "root.img"]).unwrap();
    image
}

/// The arguments of create_vm: a VM with 64 MiB, of the machine type whose ports the guest knows.
pub fn vm_arguments(stemcell: &Value, networks: Value) -> Value {
    json!(["agent", stemcell, {"memory": 64, "machine": "pc"}, networks, [], {}])
}
