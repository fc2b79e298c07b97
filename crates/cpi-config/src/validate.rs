//! What must hold beyond the kind of each key: values that depend on each other, paths, labels, PEM.

use std::path::{Component, Path};

use super::mistakes::{Layer, Mistakes, shorten};
use super::schema::STEMCELL_FORMATS;
use super::{Config, ConfigDriveFormat, LibvirtType, Stemcell, StemcellType, ThrottleName};

/// Bytes of a volume label in a FAT file system.
const FAT_LABEL_MAX: usize = 11;
/// Bytes of a volume identifier in an ISO 9660 file system.
const ISO_LABEL_MAX: usize = 32;
/// A VM does not start where its console's log is to be the file that QEMU's own is.
const LOGS_OF_QEMU: &str = "/var/log/libvirt/qemu";

/// Notes every rule that `config` breaks. Rules about keys that are already known to be wrong are skipped.
pub(super) fn cross_checks(config: &Config, mistakes: &mut Mistakes) {
    connection(config, mistakes);
    certificates(config, mistakes);
    config_drive(config, mistakes);
    settings(config, mistakes);
}

fn connection(config: &Config, mistakes: &mut Mistakes) {
    let libvirt = &config.libvirt;
    let transport = match libvirt.libvirt_type {
        LibvirtType::Tcp => "tcp",
        LibvirtType::Tls => "tls",
        LibvirtType::Ssh => "ssh",
        LibvirtType::Socket => return,
        LibvirtType::Uri => {
            if mistakes.none_at(&["libvirt.type", "libvirt.uri"]) && libvirt.uri.is_empty() {
                mistakes.add(
                    Layer::Merged,
                    "libvirt.uri",
                    "needed, because libvirt.type is uri",
                );
            }
            return;
        }
    };
    if mistakes.none_at(&["libvirt.type", "libvirt.host", "libvirt.uri"])
        && libvirt.host.is_empty()
        && libvirt.uri.is_empty()
    {
        let message = format!("needed, because libvirt.type is {transport} and libvirt.uri is not set");
        mistakes.add(Layer::Merged, "libvirt.host", &message);
    }
    if mistakes.none_at(&["libvirt.ssh.jump_host"]) && !is_jump(&libvirt.ssh.jump_host) {
        let message = format!(
            "\"{}\" is not [USER@]HOST[:PORT], with commas between several",
            shorten(&libvirt.ssh.jump_host)
        );
        mistakes.add(Layer::Merged, "libvirt.ssh.jump_host", &message);
    }
    if mistakes.none_at(&["libvirt.type", "libvirt.host", "libvirt.uri"])
        && libvirt.uri.is_empty()
        && !is_host(&libvirt.host)
    {
        let message = format!("\"{}\" is no host name or address", shorten(&libvirt.host));
        mistakes.add(Layer::Merged, "libvirt.host", &message);
    }
}

/// Whether this can stand in a URI, and in a file of known hosts, and mean a host only.
fn is_host(text: &str) -> bool {
    let brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let host = brackets.unwrap_or(text);
    !host.starts_with('-') && host.chars().all(|c| c.is_alphanumeric() || ".-_:%".contains(c))
}

/// Whether this can be the value of ssh_config's `ProxyJump` and name hosts only; empty is none.
fn is_jump(text: &str) -> bool {
    text.is_empty()
        || text.split(',').all(|jump| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:@[]".contains(c);
            !jump.is_empty() && !jump.starts_with('-') && !jump.contains("@-") && jump.chars().all(allowed)
        })
}

fn certificates(config: &Config, mistakes: &mut Mistakes) {
    let certificate = (
        "libvirt.client.certificate",
        config.libvirt.client.certificate.as_str(),
    );
    let private_key = (
        "libvirt.client.private_key",
        config.libvirt.client.private_key.expose(),
    );
    let ca = (
        "libvirt.server_ca.certificate",
        config.libvirt.server_ca.certificate.as_str(),
    );
    if mistakes.none_at(&[certificate.0, private_key.0]) {
        for (given, missing) in [(certificate, private_key), (private_key, certificate)] {
            if !given.1.is_empty() && missing.1.is_empty() {
                mistakes.add(
                    Layer::Merged,
                    missing.0,
                    &format!("needed, because {} is set", given.0),
                );
            }
        }
    }
    let ssh_key = ("libvirt.ssh.private_key", config.libvirt.ssh.private_key.expose());
    for (path, pem) in [certificate, private_key, ca, ssh_key] {
        if mistakes.none_at(&[path]) && !pem.is_empty() && !pem.contains("-----BEGIN") {
            mistakes.add(Layer::Merged, path, "not PEM: there is no line with -----BEGIN");
        }
    }
}

fn config_drive(config: &Config, mistakes: &mut Mistakes) {
    let stemcell = &config.stemcell;
    if mistakes.none_at(&["stemcell.type", "stemcell.label", "stemcell.config_drive_format"])
        && let Err(message) = label(stemcell)
    {
        let message = format!("\"{}\" {message}", shorten(&stemcell.label));
        mistakes.add(Layer::Merged, "stemcell.label", &message);
    }
    for (path, file) in [
        ("stemcell.metadata_path", &stemcell.metadata_path),
        ("stemcell.userdata_path", &stemcell.userdata_path),
        ("stemcell.filename", &stemcell.filename),
    ] {
        if mistakes.none_at(&[path])
            && let Err(message) = path_on_drive(file)
        {
            mistakes.add(Layer::Merged, path, &format!("\"{}\" {message}", shorten(file)));
        }
    }
    if mistakes.none_at(&["stemcell.formats"]) {
        if stemcell.formats.is_empty() {
            mistakes.add(Layer::Merged, "stemcell.formats", "at least one format is needed");
        }
        for format in stemcell
            .formats
            .iter()
            .filter(|format| !STEMCELL_FORMATS.contains(&format.as_str()))
        {
            let known = STEMCELL_FORMATS.join(", ");
            let message = format!("\"{}\" is not one of {known}", shorten(format));
            mistakes.add(Layer::Merged, "stemcell.formats", &message);
        }
    }
}

fn label(stemcell: &Stemcell) -> Result<(), String> {
    let label = &stemcell.label;
    let on_fat = stemcell.stemcell_type != Some(StemcellType::Cdrom)
        && stemcell.config_drive_format == Some(ConfigDriveFormat::Vfat);
    let max = if on_fat { FAT_LABEL_MAX } else { ISO_LABEL_MAX };
    if label.len() > max {
        return Err(format!(
            "is {} bytes long; a label here has at most {max}",
            label.len()
        ));
    }
    if !label.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err("has characters other than printable ASCII".to_owned());
    }
    if label.starts_with(' ') || label.ends_with(' ') {
        return Err("begins or ends with a space, which no file system keeps".to_owned());
    }
    let wrong = |c: &char| r#""*+,./:;<=>?[\]|"#.contains(*c);
    match label.chars().find(wrong) {
        Some(c) if on_fat => Err(format!("has a {c}, which a FAT label can't hold")),
        _ => Ok(()),
    }
}

fn path_on_drive(file: &str) -> Result<(), &'static str> {
    if file.is_empty() {
        return Ok(());
    }
    if file.contains(char::is_control) {
        return Err("has control characters");
    }
    if file.ends_with('/') {
        return Err("names a directory; name a file");
    }
    if !Path::new(file)
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err("must be a relative path without ..");
    }
    Ok(())
}

/// Whether this can be a CPU mode of libvirt's or the name of a model.
pub fn is_cpu_mode(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn settings(config: &Config, mistakes: &mut Mistakes) {
    if mistakes.none_at(&["settings.storage_pool_name"])
        && config.settings.storage_pool_name.trim().is_empty()
    {
        mistakes.add(
            Layer::Merged,
            "settings.storage_pool_name",
            "must name a storage pool",
        );
    }
    let cpu_mode = &config.settings.cpu_mode;
    if mistakes.none_at(&["settings.cpu_mode"]) && !cpu_mode.is_empty() && !is_cpu_mode(cpu_mode) {
        let message = format!("\"{}\" is no name of a CPU mode or model", shorten(cpu_mode));
        mistakes.add(Layer::Merged, "settings.cpu_mode", &message);
    }
    let directory = &config.settings.console_log_dir;
    if mistakes.none_at(&["settings.console_log_dir"]) && !directory.is_empty() && !directory.starts_with('/')
    {
        let message = format!("\"{}\" is not an absolute path", shorten(directory));
        mistakes.add(Layer::Merged, "settings.console_log_dir", &message);
    }
    if directory.trim_end_matches('/') == LOGS_OF_QEMU {
        let message = format!(
            "{LOGS_OF_QEMU} is where libvirt keeps QEMU's logs, one of the same name for each VM; name another directory"
        );
        mistakes.add(Layer::Merged, "settings.console_log_dir", &message);
    }
    let throttle = &config.throttle;
    if mistakes.none_at(&["throttle.name", "throttle.path"])
        && throttle.name == ThrottleName::FileLock
        && !throttle.path.is_absolute()
    {
        let message = format!(
            "\"{}\" is not an absolute path, which file-lock needs",
            shorten(&throttle.path.display().to_string())
        );
        mistakes.add(Layer::Merged, "throttle.path", &message);
    }
}
