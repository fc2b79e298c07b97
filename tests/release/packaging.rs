//! From the executable to the package: what `make release` gathers, and what `packaging` makes of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::bosh::{bosh, root};

/// The way of the package: `make release` in a copy of the release's directories, `bosh create-release`, and a machine
/// where BOSH unpacks (`compile`) and installs it.
struct Package {
    directory: TempDir,
}

impl Package {
    /// Made of the executable of the tests, which has the libraries of the release's.
    fn gather() -> Self {
        let package = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let release = package.path("release");
        fs::create_dir(&release).unwrap();
        for part in ["config", "jobs", "packages"] {
            let copied = Command::new("cp")
                .arg("-R")
                .arg(root().join(part))
                .arg(&release)
                .status();
            assert!(copied.unwrap().success());
        }
        let missing = bosh(&["release", release.to_str().unwrap()]).unwrap_err();
        assert!(
            missing.contains("Missing files for pattern 'cpi_bundle/**/*'"),
            "{missing}"
        );

        let gathered = gather(&release.join("src/cpi_bundle"), &[]);
        assert!(
            gathered.status.success(),
            "{}",
            String::from_utf8_lossy(&gathered.stderr)
        );
        let listing = bosh(&["release", release.to_str().unwrap()]).unwrap();
        let listing: Value = serde_json::from_str(&listing).unwrap();
        assert_eq!(listing["name"], "libvirt-bosh-cpi");
        for file in listing["packages"]["libvirt_cpi"].as_array().unwrap() {
            let file = file.as_str().unwrap();
            copy(
                &release.join("src").join(file),
                &package.path("compile").join(file),
            );
        }
        let packaging = release.join("packages/libvirt_cpi/packaging");
        copy(&packaging, &package.path("compile/packaging"));
        package
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `packaging` as the agent and the bosh CLI do.
    fn compile(&self, into: &str) -> Tree {
        let target = self.path(into);
        fs::create_dir_all(&target).unwrap();
        // Whatever the umask.
        let output = Command::new("bash")
            .args(["-c", "umask 077 && exec bash -x packaging"])
            .current_dir(self.path("compile"))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("BOSH_COMPILE_TARGET", self.path("compile"))
            .env("BOSH_INSTALL_TARGET", &target)
            .env("BOSH_PACKAGE_NAME", "libvirt_cpi")
            .env("BOSH_PACKAGE_VERSION", "1")
            .env("BOSH_PACKAGES_DIR", self.path("packages"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        tree(&target)
    }
}

fn gather(into: &Path, environment: &[(&str, &str)]) -> Output {
    Command::new(root().join("scripts/release"))
        .args(["--binary", env!("CARGO_BIN_EXE_cpi"), "--into"])
        .arg(into)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

/// Paths with modes and contents, directories without.
type Tree = Vec<(PathBuf, u32, Vec<u8>)>;

fn tree(directory: &Path) -> Tree {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            assert!(
                !metadata.is_symlink(),
                "{}: bosh follows no links out of src",
                path.display()
            );
            let content = if metadata.is_dir() {
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            let relative = path.strip_prefix(directory).unwrap().to_owned();
            found.push((relative, metadata.permissions().mode() & 0o7777, content));
            if metadata.is_dir() {
                left.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn from_the_executable_to_the_package() {
    let package = Package::gather();
    packaging_only_copies_and_twice_gives_the_same(&package);
    the_executable_runs_from_its_package_alone(&package);
    jammy_has_every_version_that_is_asked_for(&package);
    no_stand_in_ends_the_process(&package);
}

fn packaging_only_copies_and_twice_gives_the_same(package: &Package) {
    let gathered = tree(&package.path("release/src/cpi_bundle"));
    let first = package.compile("install");
    assert!(first == gathered, "packaging changes what was gathered");
    assert!(
        package.compile("install") == first,
        "a second run over the first differs"
    );

    // Modes that were lost on the way come back.
    fs::set_permissions(
        package.path("compile/cpi_bundle/bin/cpi"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    assert!(package.compile("elsewhere") == first);

    // What is not there is an error, not an empty package.
    fs::rename(package.path("compile/cpi_bundle"), package.path("gone")).unwrap();
    let failed = Command::new("bash")
        .arg("packaging")
        .current_dir(package.path("compile"))
        .env("BOSH_INSTALL_TARGET", package.path("nothing"))
        .output()
        .unwrap();
    assert!(!failed.status.success());
}

fn the_executable_runs_from_its_package_alone(package: &Package) {
    let libraries = loaded(&package.path("install/bin/cpi"));
    let (own, others): (Vec<_>, Vec<_>) = libraries
        .iter()
        .partition(|path| path.starts_with(package.path("install")));
    assert!(
        own.iter().any(|path| path.ends_with("libvirt.so.0")),
        "{libraries:?}"
    );
    for path in others {
        let name = path.file_name().unwrap().to_str().unwrap();
        let of_every_system = [
            "ld-linux",
            "libc.",
            "libm.",
            "libresolv.",
            "libgcc_s.",
            "libstdc++.",
        ];
        assert!(
            of_every_system.iter().any(|known| name.starts_with(known)),
            "{}",
            path.display()
        );
    }
    for name in ["LICENSE", "LIBRARIES", "libvirt0/copyright", "crates"] {
        assert!(package.path("install/licences").join(name).exists(), "{name}");
    }
}

/// The build's own check, done otherwise. Debian's glibc is newer than jammy's, so the loader here proves nothing.
fn jammy_has_every_version_that_is_asked_for(package: &Package) {
    let mut asked_for = Vec::new();
    for file in executables_and_libraries(package) {
        let listed = Command::new("readelf").arg("-V").arg(&file).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let needs = listed.split("Version needs section").nth(1).unwrap_or_default();
        let names = needs.split_whitespace().filter(|word| word.starts_with("GLIBC_"));
        asked_for.extend(names.map(|name| (name.to_owned(), file.clone())));
    }
    assert!(asked_for.len() > 100, "{asked_for:?}");
    for (name, file) in asked_for {
        let number = name
            .strip_prefix("GLIBC_2.")
            .and_then(|rest| rest.split('.').next());
        let minor: u32 = number
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {file:?}"));
        assert!(minor <= 35, "{name} in {file:?}");
    }
}

/// Whoever calls one gets an error and can say so.
fn no_stand_in_ends_the_process(package: &Package) {
    let listing = fs::read_to_string(package.path("install/licences/LIBRARIES")).unwrap();
    let (_, names) = listing.split_once("Not these").unwrap();
    let mut stand_ins = 0;
    for name in names.lines().filter(|line| line.contains(".so.")) {
        let wants = Command::new("nm")
            .args(["-D", "--undefined-only"])
            .arg(package.path("install/lib").join(name))
            .output()
            .unwrap();
        let wants = String::from_utf8(wants.stdout).unwrap();
        assert!(
            !wants.contains("abort") && !wants.contains("exit"),
            "{name}: {wants}"
        );
        stand_ins += 1;
    }
    assert!(stand_ins > 5, "{names}");
}

fn executables_and_libraries(package: &Package) -> Vec<PathBuf> {
    [
        "install/bin",
        "install/lib",
        "install/lib/sasl2",
        "install/lib/ossl-modules",
    ]
    .iter()
    .flat_map(|directory| fs::read_dir(package.path(directory)).unwrap())
    .map(|entry| entry.unwrap().path())
    .filter(|path| path.is_file())
    .collect()
}

/// The libraries that the loader would take.
fn loaded(executable: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(executable).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(|path| fs::canonicalize(path).unwrap_or_else(|e| panic!("{path}: {e}")))
        .collect()
}

/// Nothing that an older stemcell would not run gets into a package.
#[test]
fn symbols_that_are_too_new_end_the_build() {
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("cpi_bundle");
    let output = gather(&into, &[("CPI_NEWEST_GLIBC", "2.17")]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("newer than GLIBC_2.17, which the stemcell has: lib/libvirt.so.0 GLIBC_2."),
        "{stderr}"
    );
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        0,
        "something is left"
    );
}

/// git must not see it, or every release would be of a dirty tree.
#[test]
fn what_is_gathered_is_not_committed() {
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "/src/cpi_bundle"));
}
