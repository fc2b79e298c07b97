//! Ceph's RBD pools, which differ from all others: domains name their images themselves, and a full cluster makes
//! writers wait.

use std::time::Duration;

use bosh_cpi::rpc::{Cause, Error, ErrorType};
use libvirt_xml::element::Element;

/// What a call that Ceph let wait takes at least. Libvirt gives up after 30 s, unless the pool's own XML says less.
pub(super) const WAITED: Duration = Duration::from_secs(3);

/// The `<source>` of a disk. Monitors and secret are the pool's own, so that an operator only names the pool.
pub(super) fn source(pool: &Element, volume: &str) -> Element {
    let ceph_pool = pool
        .descend(&["source", "name"])
        .map(Element::text)
        .unwrap_or_default();
    let mut source = Element::new("source")
        .with_attribute("protocol", "rbd")
        .with_attribute("name", format!("{}/{volume}", ceph_pool.trim()));
    let Some(pool_source) = pool.child("source") else {
        return source;
    };
    for host in pool_source.children_named("host") {
        source.push(host.clone());
    }
    if let Some(auth) = pool_source.child("auth") {
        let mut of_disk = Element::new("auth");
        if let Some(user) = auth.attribute("username") {
            of_disk.set_attribute("username", user);
        }
        if let Some(secret) = auth.child("secret") {
            of_disk.push(secret.clone().with_attribute("type", "ceph"));
        }
        source.push(of_disk);
    }
    source
}

/// What a write that failed after this time really means. A full Ceph neither accepts nor refuses writes, and libvirt
/// reports whatever errno is at hand when it gives up, "No such file or directory" as a rule.
///
/// # Errors
/// `NoDiskSpace` when Ceph answers and takes no writes.
pub(super) fn explain(error: Error, waited: Duration, answers_reads: impl FnOnce() -> bool) -> Error {
    if waited < WAITED || error.cause == Cause::SilentCeph {
        return error;
    }
    let seconds = waited.as_secs();
    if answers_reads() {
        Error::new(
            ErrorType::NoDiskSpace,
            format!(
                "Ceph answers, but took no writes for {seconds} s: the Ceph pool, its quota or the cluster is full; \
                 see `ceph health detail` ({error})"
            ),
        )
    } else {
        Error::cloud(format!(
            "Ceph did not answer for {seconds} s: it is down or full; see `ceph health detail` ({error})"
        ))
        .retryable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_takes_monitors_and_secret_from_its_pool() {
        let pool = Element::parse(
            "<pool type='rbd'><name>ceph</name><source><host name='10.0.0.1' port='6789'/><host name='mon2'/>\
             <name>libvirt</name><auth type='ceph' username='admin'><secret uuid='u'/></auth></source></pool>",
        )
        .unwrap();
        assert_eq!(
            source(&pool, "v").to_string(),
            "<source protocol='rbd' name='libvirt/v'><host name='10.0.0.1' port='6789'/><host name='mon2'/>\
             <auth username='admin'><secret uuid='u' type='ceph'/></auth></source>"
        );
    }

    #[test]
    fn a_write_that_waited_is_told_from_one_that_was_refused() {
        let explained = |seconds, reads| {
            let error = Error::cloud("No such file or directory");
            explain(error, Duration::from_secs(seconds), || reads)
        };
        assert_eq!(explained(1, true).error_type, ErrorType::CloudError);
        assert_eq!(explained(30, true).error_type, ErrorType::NoDiskSpace);
        assert_eq!(explained(30, false).error_type, ErrorType::CloudError);
        assert!(explained(30, false).ok_to_retry);
    }
}
