//! The guest of these tests: a boot sector, since two emulations are one in the other here.

use std::time::Duration;

use crate::cpi::CONSOLES;
use crate::host::Host;
use crate::sandbox::wait_for;
use crate::tiny_guest::UP;

/// A guest under two emulations may take this long to boot beside busy builds.
const BOOT: Duration = Duration::from_secs(300);

/// Eighteen times in a second, at each tick of the timer, it does what ACPI has guests do: it says that it lets go of the
/// disks that it is asked to let go of, and switches itself off when the power button is pressed.
#[rustfmt::skip]
pub const OBEDIENT: [u8; 45] = [
    0xfb,                   // sti
    0xba, 0x02, 0x06,       // mov dx, 0x602: which events the machine reports
    0xb8, 0x00, 0x01,       // mov ax, 0x100: the power button
    0xef,                   // out dx, ax
    // up:
    0xf4,                   // hlt
    0xba, 0x10, 0xae,       // mov dx, 0xae10: the first PCI bus
    0x66, 0x31, 0xc0,       // xor eax, eax
    0x66, 0xef,             // out dx, eax
    0xba, 0x04, 0xae,       // mov dx, 0xae04: slots that are to be left
    0x66, 0xed,             // in eax, dx
    0xba, 0x08, 0xae,       // mov dx, 0xae08: slots that are left, the first of them
    0x66, 0xef,             // out dx, eax
    0xba, 0x00, 0x06,       // mov dx, 0x600: events
    0xed,                   // in ax, dx
    0xf6, 0xc4, 0x01,       // test ah, 1: the power button
    0x74, 0xe4,             // jz up
    0xba, 0x04, 0x06,       // mov dx, 0x604
    0xb8, 0x00, 0x20,       // mov ax, 0x2000: off
    0xef,                   // out dx, ax
    0xeb, 0xdb,             // jmp up
];

/// Waits until the VM's guest has booted this many times.
#[track_caller]
pub fn wait_until_up(host: &Host, vm: &str, times: usize) {
    wait_for("the guest", BOOT, || boots(host, vm) >= times);
}

/// How often the guest has booted since the VM was made.
pub fn boots(host: &Host, vm: &str) -> usize {
    host.run(&format!("cat {CONSOLES}/{vm}.log")).matches(UP).count()
}
