//! What a guest shows and says: its screen, its console, and the log of that.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use virt::stream::Stream;

use super::errors::{cpi_error, is_pool_conflict};
use super::{Connection, Domain, Pool};
use bosh_cpi::rpc::{Error, Result};
use libvirt_xml::element::Element;

/// Screens larger than this are not believed, bytes.
const MAX_SCREEN: usize = 256 * 1024 * 1024;
const CHUNK: usize = 64 * 1024;
/// How long to wait while somebody else looks into the same directory.
const PATIENCE: Duration = Duration::from_secs(10);

/// What passing pools are called; a uuid follows.
const PASSING: &str = "cpi-console-";

/// What a screen shows, in the format that the hypervisor writes.
pub struct Screenshot {
    /// `image/png` or `image/x-portable-pixmap`.
    pub mime_type: String,
    pub image: Vec<u8>,
}

impl Domain {
    /// # Errors
    /// What libvirt says, for a VM without a screen among others.
    pub fn screenshot(&self, connection: &Connection) -> Result<Screenshot> {
        let failed = |e| self.failed("taking a screenshot of", e);
        let stream = Stream::new(&connection.connect, 0).map_err(failed)?;
        let mime_type = self.domain.screenshot(&stream, 0, 0).map_err(failed)?;
        let mut image = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            match stream.recv(&mut chunk).map_err(failed)? {
                0 => break,
                _ if image.len() > MAX_SCREEN => {
                    return Err(Error::cloud(format!("the screen of VM {} has no end", self.name)));
                }
                received => image.extend_from_slice(&chunk[..usize::try_from(received).unwrap_or(0)]),
            }
        }
        stream.finish().map_err(failed)?;
        Ok(Screenshot { mime_type, image })
    }

    /// Hands over whatever the guest writes to its serial console from now on, until it ends, or `out` fails or says that
    /// it is enough, by false.
    pub fn follow_console(
        &self,
        connection: &Connection,
        mut out: impl FnMut(&[u8]) -> Result<bool>,
    ) -> Result<()> {
        let failed = |e| self.failed("reading the console of", e);
        let stream = Stream::new(&connection.connect, 0).map_err(failed)?;
        // No flags: somebody else's session is not taken over.
        self.domain.open_console(None, &stream, 0).map_err(failed)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match stream.recv(&mut chunk).map_err(failed)? {
                0 => return Ok(()),
                received if out(&chunk[..usize::try_from(received).unwrap_or(0)])? => {}
                _ => return Ok(()),
            }
        }
    }
}

impl Connection {
    /// A file on the host from this byte on, None when there is no such file. Libvirt reads files of pools only, so
    /// its directory is one while that takes, under a name of this call's.
    ///
    /// # Errors
    /// `CloudError` when the directory cannot be read, or is a pool already.
    pub fn read_file(&self, path: &Path, offset: u64) -> Result<Option<Vec<u8>>> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Ok(None);
        };
        let pool = TransientPool::on(self, directory)?;
        match pool.0.volume(name)? {
            // 0: to the end, wherever that is by now.
            Some(volume) => volume.read(self, offset, 0).map(Some),
            None => Ok(None),
        }
    }
}

/// A directory as a pool that libvirt forgets soon; its files stay.
struct TransientPool(Pool);

impl TransientPool {
    fn on(connection: &Connection, directory: &Path) -> Result<Self> {
        let name = format!("{PASSING}{}", uuid::Uuid::new_v4());
        let path = directory.display().to_string();
        let target = Element::new("target").with_child(Element::new("path").with_text(&path));
        let xml = Element::new("pool")
            .with_attribute("type", "dir")
            .with_child(Element::new("name").with_text(&name))
            .with_child(target)
            .to_string();
        let started = Instant::now();
        loop {
            match connection.connect.create_storage_pool_xml(&xml, 0) {
                Ok(pool) => return Ok(Self(Pool::new(pool, &name))),
                // Somebody else looks into it, too, which takes milliseconds.
                Err(e) if is_pool_conflict(&e) && started.elapsed() < PATIENCE => {
                    sleep(Duration::from_millis(50));
                }
                Err(_) if forget_left_over(connection, &path)? => {}
                Err(e) => return Err(cpi_error(e).during(format!("reading directory {path} on the host"))),
            }
        }
    }
}

/// Whether there was a passing pool of somebody who was killed, and is no more.
fn forget_left_over(connection: &Connection, path: &str) -> Result<bool> {
    for pool in connection
        .active_pools()?
        .into_iter()
        .filter(|pool| pool.name.starts_with(PASSING))
    {
        if pool.info()?.target == path {
            log::info!("forgetting pool {}, which a killed command has left", pool.name);
            return Ok(pool.pool.destroy().is_ok());
        }
    }
    Ok(false)
}

impl Drop for TransientPool {
    fn drop(&mut self) {
        if let Err(e) = self.0.pool.destroy() {
            log::warn!("pool {} is orphaned: {}", self.0.name, e.message());
        }
    }
}
