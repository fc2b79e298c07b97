//! What can be seen without libvirt: the configuration, and the lock file.

use std::path::Path;

use super::Finding;
use crate::throttle;
use cpi_config::{Config, Throttle, ThrottleName};
use libvirt_host::Library;

/// Every mistake, where it stands; the configuration when there is none.
pub fn config(path: &Path) -> (Vec<Finding>, Option<Config>) {
    let shown = path.display();
    let what = "configuration";
    match Config::check(path) {
        Ok(Ok(config)) => (vec![Finding::ok(what, shown.to_string())], Some(config)),
        Ok(Err(mistakes)) => {
            let place = |position| match position {
                Some((line, column)) => format!("{shown}:{line}:{column}"),
                None => shown.to_string(),
            };
            let mut findings: Vec<Finding> = mistakes
                .into_iter()
                .map(|mistake| {
                    Finding::wrong(what, format!("{}: {}", place(mistake.position), mistake.message))
                })
                .collect();
            if let Some(last) = findings.last_mut() {
                last.cure = Some(
                    "correct the file, or the job properties of these names; see docs/CONFIG.md".to_owned(),
                );
            }
            (findings, None)
        }
        Err(error) => {
            let finding =
                Finding::wrong(what, error.message).cured_by("name the file: cpi check --config PATH");
            (vec![finding], None)
        }
    }
}

pub fn lock_file(config: &Throttle) -> Finding {
    let what = "lock file";
    let path = config.path.display();
    if config.name == ThrottleName::Noop {
        return Finding::ok(what, "none: throttle.name is noop");
    }
    match throttle::probe(&config.path) {
        Ok(None) => Finding::ok(what, format!("{path} can be locked")),
        Ok(Some(holder)) => Finding::ok(what, format!("{path} can be opened; {holder}")),
        Err(error) => Finding::wrong(what, error.message).cured_by(lock_file_cure(&config.path)),
    }
}

fn lock_file_cure(path: &Path) -> String {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if directory.is_dir() {
        return format!(
            "ls -l {}; remove it if nothing else uses it, let the CPI's user open it, or set throttle.path",
            path.display()
        );
    }
    format!(
        "make its directory, writable for the CPI's user, or set throttle.path: mkdir -p {}",
        directory.display()
    )
}

/// libvirt's client library, which `make build` takes from the system.
pub fn client_library() -> Finding {
    let what = "client library";
    match Library::loaded() {
        Ok(library) => {
            let says = format!("libvirt {}, {}", library.version(), library.path.display());
            if library.may_crash() {
                Finding::warning(
                    what,
                    format!("{says}: calls can die of SIGSEGV (CVE-2024-4418), unless the distribution has backported the fix"),
                )
                .cured_by("use the package of the BOSH release, which has its own library, or libvirt 10.4 or later")
            } else {
                Finding::ok(what, says)
            }
        }
        Err(e) => Finding::warning(what, format!("unknown: {e}")),
    }
}
