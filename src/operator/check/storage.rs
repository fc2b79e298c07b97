//! The pools, and the directory for console logs.

use std::fmt;
use std::path::Path;

use super::{Finding, guest};
use crate::operator::probe::Probe;
use bosh_cpi::measures::size;
use bosh_cpi::rpc::Result;
use cpi_config::Settings;
use libvirt_host::{Connection, Pool, PoolInfo};

/// Less than one of so many parts of a pool free, or less than this many bytes, is worth a warning.
const LITTLE_PARTS: u64 = 20;
const LITTLE_BYTES: u64 = 5 << 30;

/// Findings for each pool of the configuration, and a probe in each that can be written to, the stemcells' first.
pub fn pools(libvirt: &Connection, settings: &Settings) -> (Vec<Finding>, Vec<Probe>) {
    let mut names = vec![settings.stemcell_pool()];
    if settings.storage_pool_name != settings.stemcell_pool() {
        names.push(&settings.storage_pool_name);
    }
    let (mut findings, mut probes) = (Vec::new(), Vec::new());
    for (number, name) in names.into_iter().enumerate() {
        let what = format!("pool {name}");
        let key = if settings.stemcell_pool_name.is_empty() || number > 0 {
            "settings.storage_pool_name"
        } else {
            "settings.stemcell_pool_name"
        };
        let finding = match libvirt.find_pool(name) {
            Ok(Some(pool)) => look(libvirt, &what, &pool, number == 0, &mut probes),
            Ok(None) => Ok(Finding::wrong(&what, "does not exist").cured_by(format!(
                "virsh pool-define-as {name} dir --target /var/lib/libvirt/images; virsh pool-build {name}; \
                 virsh pool-start {name}; virsh pool-autostart {name}; or name another as {key}"
            ))),
            Err(error) => Err(error),
        };
        findings.push(Finding::of(&what, finding));
    }
    (findings, probes)
}

fn look(
    libvirt: &Connection,
    what: &str,
    pool: &Pool,
    for_stemcells: bool,
    probes: &mut Vec<Probe>,
) -> Result<Finding> {
    let info = pool.info()?;
    let name = &pool.name;
    if !info.active {
        return Ok(Finding::wrong(what, "is inactive")
            .cured_by(format!("virsh pool-start {name}; virsh pool-autostart {name}")));
    }
    if for_stemcells && let Err(error) = pool.require_files() {
        return Ok(Finding::failed(what, "", &error)
            .cured_by("set settings.stemcell_pool_name to a pool of type dir, fs or netfs"));
    }
    let room = Room::of(libvirt, &info);
    let free = format!("{}, {room}", info.kind);
    // The stemcells' pool holds files, of which QEMU can boot.
    let probe = if for_stemcells {
        Probe::with_content(libvirt, pool, &guest::boot_disk())
    } else {
        Probe::new(pool)
    };
    match probe {
        Ok(probe) => probes.push(probe),
        Err(error) => {
            let target = if info.target.is_empty() {
                "its target"
            } else {
                &info.target
            };
            return Ok(
                Finding::failed(what, &format!("{free}; cannot be written to: "), &error).cured_by(format!(
                    "on the host: df -h {target}; ls -ld {target}; virsh pool-refresh {name}"
                )),
            );
        }
    }
    if room.free < LITTLE_BYTES || room.free < room.all / LITTLE_PARTS {
        return Ok(
            Finding::warning(what, format!("{free}, which is little")).cured_by(
                "delete stemcells that are not in use (bosh clean-up), `cpi prune`, or grow the pool",
            ),
        );
    }
    if !info.autostart {
        return Ok(
            Finding::warning(what, format!("{free}, writable, but not started with libvirt"))
                .cured_by(format!("virsh pool-autostart {name}")),
        );
    }
    Ok(Finding::ok(what, format!("{free}, writable")))
}

/// How much may be written to a pool.
struct Room {
    /// Bytes.
    free: u64,
    all: u64,
    /// Whether `free` has what the file system keeps for root, which QEMU does not get: libvirt counts that as available,
    /// while df does not.
    has_reserve: bool,
}

impl Room {
    /// Of a file system of this machine as df says, of others as libvirt says.
    fn of(libvirt: &Connection, info: &PoolInfo) -> Self {
        let has_files = matches!(info.kind.as_str(), "dir" | "fs" | "netfs");
        let here = has_files
            .then(|| libvirt.is_local().then(|| file_system(&info.target)).flatten())
            .flatten()
            // A libvirtd behind a forwarded socket, or in a container, has another one.
            .filter(|(_, all)| *all == info.capacity);
        Self {
            free: here.map_or(info.available, |(free, _)| free.min(info.available)),
            all: info.capacity,
            has_reserve: has_files && here.is_none(),
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reserve = if self.has_reserve {
            " or reserved for root"
        } else {
            ""
        };
        write!(f, "{} of {} free{reserve}", size(self.free), size(self.all))
    }
}

/// Bytes that are free for all users, and bytes in all, of the file system that this path is on.
fn file_system(path: &str) -> Option<(u64, u64)> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some((
        found.f_bavail.checked_mul(found.f_frsize)?,
        found.f_blocks.checked_mul(found.f_frsize)?,
    ))
}

/// VMs do not start where their consoles cannot be logged.
pub fn console_directory(libvirt: &Connection, settings: &Settings) -> Option<Finding> {
    let what = "console logs";
    let directory = &settings.console_log_dir;
    if directory.is_empty() {
        return Some(
            Finding::warning(
                what,
                "disabled, so the output of a guest whose agent does not answer is lost",
            )
            .cured_by("set settings.console_log_dir to a directory on the host"),
        );
    }
    // There is no such file; whether there is such a directory is the question.
    Some(
        match libvirt.read_file(&Path::new(directory).join("cpi-check"), 0) {
            Ok(_) => Finding::ok(what, directory.clone()),
            Err(error) => {
                Finding::failed(what, "", &error).cured_by(format!("on the host: mkdir -p {directory}"))
            }
        },
    )
}
