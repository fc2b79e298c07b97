//! The scripts that operators source or run, with a bosh CLI that knows `bosh int FILE --path PATH`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::bosh::{bosh, root};
use crate::deployment::{fixture, interpolate, manifest};

const CREDENTIALS: &str = r"
admin_password: pass word
director_ssl: {ca: DIRECTOR-CA}
credhub_admin_client_secret: hush
credhub_tls: {ca: CREDHUB-CA}
uaa_ssl: {ca: UAA-CA}
vm_ssh_key: {private_key: VCAP-KEY}
";

fn site(credentials: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("bosh-creds.yml"), credentials).unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$1 $3\" = 'int --path' ] || exit 64\nexec ruby --disable=gems '{}' path \"$2\" \"$4\"\n",
        root().join("tests/release/bosh.rb").display()
    );
    let program = directory.path().join("bosh");
    fs::write(&program, script).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn shell(site: &TempDir, commands: &str) -> Output {
    let path = format!("{}:{}", site.path().display(), std::env::var("PATH").unwrap());
    Command::new("bash")
        .args(["-c", commands])
        .current_dir(site.path())
        .env("PATH", path)
        .env("SCRIPTS", root().join("scripts"))
        .env("BOSH_CREDS", site.path().join("bosh-creds.yml"))
        .output()
        .unwrap()
}

#[track_caller]
fn prints(site: &TempDir, commands: &str, expected: &str) {
    let output = shell(site, commands);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn environments() {
    let site = site(CREDENTIALS);
    prints(
        &site,
        ". $SCRIPTS/bosh-env.sh; env -0 | tr '\\0' '\\n' | grep '^BOSH_C\\|^BOSH_E' | grep -v CREDS | sort",
        "BOSH_CA_CERT=DIRECTOR-CA\nBOSH_CLIENT=admin\nBOSH_CLIENT_SECRET=pass word\nBOSH_ENVIRONMENT=192.168.123.7\n",
    );
    prints(
        &site,
        ". $SCRIPTS/credhub-env.sh; echo \"$CREDHUB_CLIENT $CREDHUB_SECRET $CREDHUB_SERVER $CREDHUB_CA_CERT\"",
        "credhub-admin hush https://192.168.123.7:8844 CREDHUB-CA\nUAA-CA\n",
    );
}

#[test]
fn half_an_environment_is_none() {
    let site = site("admin_password: x\n");
    for script in ["bosh-env.sh", "credhub-env.sh"] {
        let commands =
            format!(". $SCRIPTS/{script}; echo \"$? [$BOSH_CLIENT$BOSH_CLIENT_SECRET$CREDHUB_SERVER]\"");
        prints(&site, &commands, "1 []\n");
        let run = shell(&site, &format!("$SCRIPTS/{script}"));
        assert!(!run.status.success());
        assert!(String::from_utf8_lossy(&run.stderr).contains("nothing is set"));
    }
}

#[test]
fn ssh_keys() {
    let site = site(CREDENTIALS);
    // Twice: the first run's file can't be written to.
    for _ in 0..2 {
        let output = shell(&site, "$SCRIPTS/get-ssh-keys.sh");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("no key for jumpbox"));
        let key = site.path().join("vcap-private-key.pem");
        assert_eq!(fs::read_to_string(&key).unwrap(), "VCAP-KEY\n");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o400);
        assert!(!site.path().join("jumpbox-private-key.pem").exists());
    }
}

/// openssl takes the certificates for what they are for, and the variables go into libvirt-tls.yml.
#[test]
fn certificates() {
    let site = site("{}");
    let make = "$SCRIPTS/libvirt-certificates pki";
    assert!(shell(&site, &format!("{make} 192.168.123.1")).status.success());
    let first = fs::read(site.path().join("pki/client.pem")).unwrap();
    assert!(
        shell(&site, &format!("{make} 192.168.123.1 host-2.example.com"))
            .status
            .success()
    );
    assert_eq!(
        fs::read(site.path().join("pki/client.pem")).unwrap(),
        first,
        "a second run keeps what is there"
    );
    for verify in [
        "-purpose sslclient pki/client.pem",
        "-purpose sslserver -verify_ip 192.168.123.1 pki/server-192.168.123.1.pem",
        "-purpose sslserver -verify_hostname host-2.example.com pki/server-host-2.example.com.pem",
    ] {
        let output = shell(&site, &format!("openssl verify -CAfile pki/ca.pem {verify}"));
        assert!(output.status.success(), "{verify}: {output:?}");
    }
    let wrong = shell(
        &site,
        "openssl verify -CAfile pki/ca.pem -purpose sslserver pki/client.pem",
    );
    assert!(!wrong.status.success());
    for entry in fs::read_dir(site.path().join("pki")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            entry.path()
        );
    }
    assert!(!shell(&site, &format!("{make} 'a b'")).status.success());

    let variables: &Path = &site.path().join("pki/libvirt-tls-vars.yml");
    let host = bosh(&["path", variables.to_str().unwrap(), "/libvirt_host"]).unwrap();
    assert_eq!(host, "192.168.123.1\n");
    let ops = ["libvirt-cpi.yml", "libvirt-cpi-dev.yml", "libvirt-tls.yml"].map(manifest);
    let vars = [
        manifest("bosh-vars.yml"),
        manifest("libvirt-kvm-vars.yml"),
        variables.to_owned(),
    ];
    let deployed = interpolate(&fixture("bosh.yml"), &ops, &vars).unwrap();
    let libvirt = &deployed["cloud_provider"]["properties"]["libvirt_cpi"]["libvirt"];
    let key = fs::read_to_string(site.path().join("pki/client-key.pem")).unwrap();
    assert_eq!(libvirt["client"]["private_key"], key);
}
