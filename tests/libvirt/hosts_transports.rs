//! Every way to a host: TCP with user and password, TLS, SSH. What goes wrong says what to mend; no secret is shown
//! and none is left on the disk.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hosts_daemon::{Host, Setup};
use crate::interrupts::interrupted;
use crate::sandbox::{Answer, coverage, merge, run, wait_for};

/// In everything that must never be shown.
pub const PASSWORD: &str = "hunter2hunter2";

fn has_vm(host: &Host, libvirt: &Value) -> Answer {
    let answer = host.call(
        libvirt,
        "has_vm",
        json!(["vm-00000000-0000-4000-8000-000000000000"]),
    );
    let everything = format!("{} {}", answer.response, answer.stderr);
    for secret in [PASSWORD, "PRIVATE KEY", "BEGIN CERT"] {
        assert!(!everything.contains(secret), "{everything}");
    }
    let left = private_directories(&host.directory().join("tmp"));
    assert!(left.is_empty(), "left on the disk: {left:?}");
    answer
}

/// It does not connect, and a second try would not either; the message says this.
#[track_caller]
fn refused(host: &Host, libvirt: &Value, says: &str) {
    let message = has_vm(host, libvirt).error("CloudError", false);
    assert!(message.contains(says), "{says:?} is not in {message:?}");
}

fn private_directories(tmpdir: &Path) -> Vec<String> {
    fs::read_dir(tmpdir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("libvirt-bosh-cpi-"))
        .collect()
}

fn with(mut value: Value, extra: Value) -> Value {
    merge(&mut value, extra);
    value
}

/// Makes libvirtd know the user `bosh@host`, by these mechanisms; returns the commands within the host for it.
pub fn sasl_user(directory: &Path, mechanisms: &str) -> String {
    let database = directory.join("etc/passwd.db");
    let mut saslpasswd = Command::new("saslpasswd2")
        .args(["-p", "-c", "-a", "libvirt", "-u", "host", "-f"])
        .arg(&database)
        .arg("bosh")
        .env("PATH", "/usr/sbin:/usr/bin")
        .stdin(Stdio::piped())
        .spawn()
        .expect("saslpasswd2; run `make setup`");
    saslpasswd
        .stdin
        .take()
        .unwrap()
        .write_all(PASSWORD.as_bytes())
        .unwrap();
    assert!(saslpasswd.wait().unwrap().success());
    let configuration = format!("mech_list: {mechanisms}\nsasldb_path: {}\n", database.display());
    fs::write(directory.join("etc/sasl.conf"), configuration).unwrap();
    "mkdir -p /etc/sasl2; touch /etc/sasl2/libvirt.conf\n\
     mount --bind \"$directory/etc/sasl.conf\" /etc/sasl2/libvirt.conf\n"
        .to_owned()
}

#[test]
fn tcp_with_user_and_password() {
    let host = Host::with(|_, directory| Setup {
        libvirtd: "listen_tls = 0\nauth_tcp = \"sasl\"\n".to_owned(),
        commands: sasl_user(directory, "digest-md5"),
    });
    let login = |username: &str, password: &str| {
        with(
            host.libvirt(),
            json!({"username": username, "password": password}),
        )
    };
    assert_eq!(has_vm(&host, &login("bosh@host", PASSWORD)).result(), false);
    for (username, password) in [("bosh@host", "wrong"), ("nobody@host", PASSWORD), ("", "")] {
        refused(
            &host,
            &login(username, password),
            "libvirt.username and libvirt.password",
        );
    }
    // The same in a URI of one's own.
    let uri = json!({"type": "uri", "uri": format!("qemu+tcp://{}/system", host.address),
        "username": "bosh@host", "password": PASSWORD});
    assert_eq!(has_vm(&host, &uri).result(), false);
}

/// Certificates as an operator makes them, with certtool.
struct Authority<'a> {
    directory: &'a Path,
    name: &'static str,
}

impl<'a> Authority<'a> {
    fn new(directory: &'a Path, name: &'static str) -> Self {
        let authority = Self { directory, name };
        authority.key(name);
        authority.certtool(
            name,
            &format!("cn = {name}\nca\ncert_signing_key\n"),
            &["--generate-self-signed"],
        );
        authority
    }

    /// A key and a certificate for it, with these lines in certtool's template.
    fn issue(&self, name: &str, template: &str) {
        self.key(name);
        let ca = |kind: &str| self.path(self.name, kind);
        self.certtool(
            name,
            &format!("cn = {name}\nsigning_key\nencryption_key\n{template}"),
            &[
                "--generate-certificate",
                "--load-ca-certificate",
                &ca("cert"),
                "--load-ca-privkey",
                &ca("key"),
            ],
        );
    }

    fn key(&self, name: &str) {
        let arguments = [
            "--generate-privkey",
            "--bits",
            "2048",
            "--outfile",
            &self.path(name, "key"),
        ];
        run("certtool", &arguments).unwrap();
    }

    fn certtool(&self, name: &str, template: &str, arguments: &[&str]) {
        let file = self.path(name, "template");
        fs::write(&file, template).unwrap();
        let (key, certificate) = (self.path(name, "key"), self.path(name, "cert"));
        let common = [
            "--load-privkey",
            &key,
            "--template",
            &file,
            "--outfile",
            &certificate,
        ];
        run("certtool", &[arguments, &common].concat()).unwrap();
    }

    fn path(&self, name: &str, kind: &str) -> String {
        self.directory
            .join(format!("{name}.{kind}"))
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn pem(&self, name: &str, kind: &str) -> String {
        fs::read_to_string(self.path(name, kind)).unwrap()
    }
}

/// A host whose libvirtd shows this certificate, and the PEM texts to reach it with.
fn tls_host(template: impl FnOnce(&str) -> String) -> (Host, Value) {
    let host = Host::with(|address, directory| {
        let authority = Authority::new(directory, "ca");
        authority.issue("server", &format!("tls_www_server\n{}", template(address)));
        authority.issue("client", "tls_www_client\n");
        Authority::new(directory, "other-ca").issue("stranger", "tls_www_client\n");
        let path = |name: &str, kind: &str| authority.path(name, kind);
        Setup {
            libvirtd: format!(
                "listen_tls = 1\nauth_tls = \"none\"\nauth_tcp = \"none\"\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
                path("ca", "cert"),
                path("server", "cert"),
                path("server", "key"),
            ),
            commands: String::new(),
        }
    });
    let authority = Authority {
        directory: host.directory(),
        name: "ca",
    };
    let libvirt = json!({
        "type": "tls", "host": host.address,
        "client": {"certificate": authority.pem("client", "cert"), "private_key": authority.pem("client", "key")},
        "server_ca": {"certificate": authority.pem("ca", "cert")},
    });
    (host, libvirt)
}

#[test]
fn tls_with_certificates_as_text() {
    let (host, libvirt) = tls_host(|address| format!("ip_address = {address}\ndns_name = localhost\n"));
    assert_eq!(has_vm(&host, &libvirt).result(), false);

    let pem = |name: &str, kind: &str| {
        let directory = host.directory();
        Authority { directory, name: "" }.pem(name, kind)
    };
    let client = |certificate: &str, private_key: &str| {
        with(
            libvirt.clone(),
            json!({"client": {"certificate": certificate, "private_key": private_key}}),
        )
    };
    refused(&host, &client("", ""), "wants a client certificate");
    refused(
        &host,
        &client(&pem("stranger", "cert"), &pem("stranger", "key")),
        "libvirt.client.certificate is not signed by the CA",
    );
    refused(
        &host,
        &client(&pem("client", "cert"), &pem("stranger", "key")),
        "does the private key belong to the certificate",
    );
    let wrong_ca = json!({"server_ca": {"certificate": pem("other-ca", "cert")}});
    for libvirt in [
        client("", ""),
        client(&pem("stranger", "cert"), &pem("stranger", "key")),
    ] {
        refused(
            &host,
            &with(libvirt, wrong_ca.clone()),
            "the server's certificate is not signed by the CA in libvirt.server_ca.certificate",
        );
    }
}

#[test]
fn tls_to_a_server_with_an_expired_certificate() {
    // Libvirtd does not start with such a certificate: it has to expire while it runs.
    let lifetime = Duration::from_secs(6);
    let started = Instant::now();
    let (host, libvirt) = tls_host(|address| {
        let expires = format!("+{} seconds", lifetime.as_secs());
        let expires = run("date", &["-u", "+%F %T UTC", "-d", &expires]).unwrap();
        format!(
            "ip_address = {address}\nexpiration_date = \"{}\"\n",
            expires.trim()
        )
    });
    std::thread::sleep((lifetime + Duration::from_secs(3)).saturating_sub(started.elapsed()));
    refused(&host, &libvirt, "the server's certificate has expired");
}

#[test]
fn tls_to_a_server_with_another_name() {
    let (host, libvirt) = tls_host(|_| "dns_name = elsewhere.example.com\n".to_owned());
    refused(
        &host,
        &libvirt,
        "the server's certificate is for another host name",
    );
}

#[test]
fn keys_are_gone_however_the_process_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    Authority::new(directory.path(), "ca").issue("client", "tls_www_client\n");
    let pem =
        |name: &str, kind: &str| fs::read_to_string(directory.path().join(format!("{name}.{kind}"))).unwrap();
    let config = json!({"libvirt": {"type": "tls", "host": "127.0.0.1",
        "port": listener.local_addr().unwrap().port(),
        "client": {"certificate": pem("client", "cert"), "private_key": pem("client", "key")},
        "server_ca": {"certificate": pem("ca", "cert")}}});
    let path = directory.path().join("cpi.json");
    fs::write(&path, config.to_string()).unwrap();
    let tmpdir = directory.path().join("tmp");
    fs::create_dir(&tmpdir).unwrap();
    for (signal, number, answers) in [
        ("TERM", 15, true),
        ("INT", 2, true),
        ("HUP", 1, true),
        ("QUIT", 3, false),
        ("USR1", 10, false),
        ("ALRM", 14, false),
    ] {
        // Whoever runs the tests in the background may have them ignore SIGINT, and children inherit that.
        let mut call = Command::new("/usr/bin/env")
            .args(["--default-signal", env!("CARGO_BIN_EXE_cpi")])
            .args(["--config", path.to_str().unwrap()])
            .env_clear()
            .env("TMPDIR", &tmpdir)
            .envs(coverage())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        call.stdin
            .take()
            .unwrap()
            .write_all(br#"{"method":"has_vm","arguments":["vm-00000000-0000-4000-8000-000000000000"]}"#)
            .unwrap();
        wait_for("the call to write its keys", Duration::from_secs(10), || {
            private_directories(&tmpdir)
                .first()
                .is_some_and(|name| tmpdir.join(name).join("clientkey.pem").exists())
        });
        let name = private_directories(&tmpdir).remove(0);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(tmpdir.join(name)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
        if answers {
            interrupted(call, signal, "CloudError");
        } else {
            run("kill", &[&format!("-{signal}"), &call.id().to_string()]).unwrap();
            let status = call.wait().unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(number)
            );
        }
        assert!(private_directories(&tmpdir).is_empty(), "after SIG{signal}");
    }
}

/// Keys for an SSH server on port 2222 that lets `client_key` in; returns the commands within the host that start it.
pub fn sshd(address: &str, directory: &Path) -> String {
    for name in ["host", "client", "stranger"] {
        let file = directory.join(format!("{name}_key"));
        run(
            "ssh-keygen",
            &[
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                name,
                "-f",
                file.to_str().unwrap(),
            ],
        )
        .unwrap();
    }
    let keys = fs::read_to_string(directory.join("client_key.pub")).unwrap();
    fs::write(directory.join("authorized_keys"), keys).unwrap();
    fs::write(
        directory.join("sshd_config"),
        format!(
            "ListenAddress {address}:2222\nHostKey {0}/host_key\nAuthorizedKeysFile {0}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n",
            directory.display()
        ),
    )
    .unwrap();
    // The address is there a moment later.
    format!(
        "(until ip addr show | grep -q {address}/; do sleep 0.05; done\n\
         exec /usr/sbin/sshd -f \"$directory/sshd_config\" -E \"$directory/sshd.log\") &\n"
    )
}

#[test]
fn ssh_with_keys_as_text() {
    let host = Host::with(|address, directory| Setup {
        libvirtd: "listen_tls = 0\nauth_tcp = \"none\"\n".to_owned(),
        commands: sshd(address, directory),
    });
    let read = |name: &str| fs::read_to_string(host.directory().join(name)).unwrap();
    let ssh = |private_key: &str, host_key: &str| {
        json!({"type": "ssh", "host": host.address, "port": 2222, "username": "root",
            "ssh": {"private_key": private_key, "host_key": host_key}})
    };
    let (private_key, host_key) = (read("client_key"), read("host_key.pub"));
    wait_for("sshd", Duration::from_secs(10), || {
        std::net::TcpStream::connect(format!("{}:2222", host.address)).is_ok()
    });
    // Several, since a process that ends while libvirt still closes the connection may be killed by what it frees.
    for _ in 0..10 {
        assert_eq!(has_vm(&host, &ssh(&private_key, &host_key)).result(), false);
    }
    refused(
        &host,
        &ssh(&private_key, &read("stranger_key.pub")),
        "libvirt.ssh.host_key",
    );
    refused(
        &host,
        &ssh(&read("stranger_key"), &host_key),
        "libvirt.ssh.private_key",
    );
    // Nothing is asked, nothing is trusted at first sight.
    refused(&host, &ssh(&private_key, ""), "libvirt.ssh.host_key");
}
