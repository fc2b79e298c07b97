//! `cpi check`: is everything there that calls need, and does it work? One line each: fine, or what is wrong and what
//! cures it.

mod clock;
mod confinement;
mod guest;
mod host;
mod local;
mod network;
mod storage;

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::table::{width, wrapped};
use super::{print, to_json};
use bosh_cpi::interrupt;
use bosh_cpi::logging::on_one_line;
use bosh_cpi::rpc::{Cause, Error, Result};
use libvirt_host::Connection;

/// What one look has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: String,
    pub state: State,
    pub says: String,
    pub cure: Option<String>,
    /// Why libvirt failed, if it did.
    #[serde(skip)]
    pub cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Calls work, but not as well as they could.
    Warning,
    Wrong,
}

impl Finding {
    fn new(check: &str, state: State, says: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            state,
            says: says.into(),
            cure: None,
            cause: Cause::Other,
        }
    }

    pub fn ok(check: &str, says: impl Into<String>) -> Self {
        Self::new(check, State::Ok, says)
    }

    pub fn warning(check: &str, says: impl Into<String>) -> Self {
        Self::new(check, State::Warning, says)
    }

    pub fn wrong(check: &str, says: impl Into<String>) -> Self {
        Self::new(check, State::Wrong, says)
    }

    #[must_use]
    pub fn cured_by(self, cure: impl Into<String>) -> Self {
        Self {
            cure: Some(cure.into()),
            ..self
        }
    }

    /// What an outcome says: an error is what is wrong.
    pub fn of(check: &str, outcome: Result<Self>) -> Self {
        outcome.unwrap_or_else(|error| Self::failed(check, "", &error))
    }

    /// What an error says, after what was found out before it.
    pub fn failed(check: &str, before: &str, error: &Error) -> Self {
        Self {
            cause: error.cause,
            ..Self::wrong(check, format!("{before}{}", error.message))
        }
    }
}

/// Whether nothing is wrong.
pub fn run(config_path: &Path, as_json: bool) -> Result<bool> {
    let findings = look(config_path);
    // After Ctrl-C not everything was looked at.
    interrupt::check()?;
    let is_well = findings.iter().all(|finding| finding.state != State::Wrong);
    print(&if as_json {
        to_json(&json!({"ok": is_well, "checks": findings}))
    } else {
        findings.iter().map(line).collect()
    })?;
    Ok(is_well)
}

fn look(config_path: &Path) -> Vec<Finding> {
    let (mut findings, config) = local::config(config_path);
    let Some(config) = config else {
        return findings;
    };
    findings.push(local::lock_file(&config.throttle));
    findings.push(local::client_library());
    let (finding, libvirt) = host::connection(&config.libvirt);
    findings.push(finding);
    let Some(libvirt) = libvirt else {
        return findings;
    };
    // From here on something is made, which Ctrl-C has to take away again.
    interrupt::answer_first();
    look_at_host(&libvirt, &config, &mut findings);
    findings.into_iter().map(cured_of_permissions).collect()
}

/// Whatever it was that libvirt did not let us do, the cure is the same.
fn cured_of_permissions(finding: Finding) -> Finding {
    let cure = match finding.cause {
        Cause::ReadOnlyConnection => {
            "connect to libvirt-sock, not to libvirt-sock-ro: see libvirt.socket and libvirt.uri"
        }
        Cause::Denied => {
            "allow this user everything that virsh may do: see the rules of libvirt's access driver (polkit) on the host"
        }
        _ => return finding,
    };
    finding.cured_by(cure)
}

fn look_at_host(libvirt: &Connection, config: &cpi_config::Config, findings: &mut Vec<Finding>) {
    findings.push(Finding::of("versions", host::versions(libvirt)));
    findings.extend(host::language(libvirt));
    let domain_type = host::domain_type(libvirt, config, findings);
    findings.push(Finding::of(
        "capabilities",
        host::capabilities(libvirt, domain_type),
    ));
    let (of_pools, probes) = storage::pools(libvirt, &config.settings);
    findings.extend(of_pools);
    findings.push(guest::runs(libvirt, config, domain_type, probes.first()));
    findings.push(Finding::of(
        "firmware",
        host::firmware(libvirt, config, domain_type),
    ));
    findings.push(Finding::of(
        "network",
        network::network(libvirt, &config.settings),
    ));
    findings.extend(storage::console_directory(libvirt, &config.settings));
    findings.push(clock::clocks(&probes));
}

fn line(finding: &Finding) -> String {
    const INDENT: usize = 8;
    let state = match finding.state {
        State::Ok => "OK",
        State::Warning => "WARN",
        State::Wrong => "WRONG",
    };
    let width = width();
    let text = format!("{}: {}", finding.check, on_one_line(&finding.says));
    let mut line = format!("{state:<INDENT$}{}\n", wrapped(&text, width, INDENT));
    if let Some(cure) = &finding.cure {
        let cure = wrapped(&format!("cure: {}", on_one_line(cure)), width, INDENT);
        line.push_str(&format!("{:INDENT$}{cure}\n", ""));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_permission_has_one_cure_wherever_it_shows() {
        for (cause, cure) in [
            (Cause::ReadOnlyConnection, "libvirt-sock-ro"),
            (Cause::Denied, "polkit"),
            (Cause::Full, "df"),
        ] {
            let error = Error::cloud("x").because(cause);
            let finding = cured_of_permissions(Finding::of("pool p", Err(error)).cured_by("df"));
            assert!(finding.cure.unwrap().contains(cure), "{cause:?}");
        }
    }
}
