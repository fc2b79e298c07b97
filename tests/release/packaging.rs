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
    /// Made of the executable of the tests, which is linked as the release's is.
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
    the_library_exports_libvirts_functions_only(&package);
    the_list_of_contents_has_both(&package);
    gathering_again_gives_the_same(&package);
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
    let installed: Vec<_> = tree(&package.path("install"))
        .into_iter()
        .map(|(path, ..)| path)
        .filter(|path| !path.starts_with("licences") && package.path("install").join(path).is_file())
        .collect();
    assert_eq!(
        installed,
        ["bin/cpi", "lib/libvirt.so.0", "sbom.cdx.json"].map(PathBuf::from)
    );
    let libraries = loaded(&package.path("install/bin/cpi"));
    let (own, others): (Vec<_>, Vec<_>) = libraries
        .iter()
        .partition(|path| path.starts_with(package.path("install")));
    assert_eq!(own, [&package.path("install/lib/libvirt.so.0")]);
    for path in others {
        let name = path.file_name().unwrap().to_str().unwrap();
        let of_every_system = ["ld-linux", "libc.", "libm.", "libgcc_s."];
        assert!(
            of_every_system.iter().any(|known| name.starts_with(known)),
            "{}",
            path.display()
        );
    }
    for name in [
        "LICENSE",
        "library/libvirt/copyright",
        "library/libffi-dev/copyright",
        "crates",
    ] {
        assert!(package.path("install/licences").join(name).exists(), "{name}");
    }
}

/// The build's own check, done otherwise. Debian's glibc is newer than jammy's, so the loader here proves nothing.
fn jammy_has_every_version_that_is_asked_for(package: &Package) {
    let mut asked_for = Vec::new();
    for file in ["install/bin/cpi", "install/lib/libvirt.so.0"].map(|name| package.path(name)) {
        let listed = Command::new("readelf").arg("-V").arg(&file).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let needs = listed.split("Version needs section").nth(1).unwrap_or_default();
        let names = needs.split_whitespace().filter(|word| word.starts_with("GLIBC_"));
        asked_for.extend(names.map(|name| (name.to_owned(), file.clone())));
    }
    assert!(asked_for.len() > 20, "{asked_for:?}");
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

/// A symbol of a library within the library would take the place of the same one elsewhere in the process.
fn the_library_exports_libvirts_functions_only(package: &Package) {
    let exported = nm(
        &["-D", "--defined-only"],
        &package.path("install/lib/libvirt.so.0"),
    );
    let names: Vec<_> = exported
        .lines()
        .map(|line| line.split_whitespace().last().unwrap())
        .collect();
    assert!(names.len() > 500, "{exported}");
    for name in names {
        assert!(
            name.starts_with("vir") || name.starts_with("LIBVIRT_"),
            "{name} is exported"
        );
    }
}

/// By what `cpi --version --verbose` tells of the library, and by Cargo.lock.
fn the_list_of_contents_has_both(package: &Package) {
    let list: Value =
        serde_json::from_slice(&fs::read(package.path("install/sbom.cdx.json")).unwrap()).unwrap();
    assert_eq!(list["bomFormat"], "CycloneDX");
    let components: Vec<(String, String)> = list["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| {
            let text = |key: &str| component[key].as_str().unwrap().to_owned();
            assert!(
                text("bom-ref").starts_with("pkg:") || text("name") == "libvirt.so.0",
                "{component}"
            );
            let sums = component
                .pointer("/hashes")
                .or(component.pointer("/externalReferences/0/hashes"));
            let sum = sums.and_then(|sums| sums[0]["content"].as_str()).unwrap();
            assert_eq!(sum.len(), 64, "{component}");
            (text("name"), text("version"))
        })
        .collect();
    let output = Command::new(package.path("install/bin/cpi"))
        .args(["--version", "--verbose"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let parts: Vec<_> = told
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once(' '))
        .collect();
    assert!(parts.len() > 10, "{told}");
    for (name, version) in parts {
        assert!(
            components.contains(&(name.to_owned(), version.to_owned())),
            "{name} {version}"
        );
    }
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for name in ["serde_json", "virt-sys"] {
        let (_, of_crate) = lock
            .split_once(&format!("name = \"{name}\"\nversion = \""))
            .unwrap();
        let version = of_crate.split('"').next().unwrap();
        assert!(
            components.contains(&(name.to_owned(), version.to_owned())),
            "{name} {version}"
        );
    }
}

fn gathering_again_gives_the_same(package: &Package) {
    let again = package.path("again/cpi_bundle");
    assert!(gather(&again, &[]).status.success());
    assert!(
        tree(&again) == tree(&package.path("release/src/cpi_bundle")),
        "two runs of scripts/release differ"
    );
}

fn nm(options: &[&str], file: &Path) -> String {
    let output = Command::new("nm").args(options).arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
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
