//! What scripts/client-library builds from: pins and recipes. The library itself is tested in `packaging` and in
//! tests/libvirt/packaged.rs.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::bosh::root;

fn directory() -> PathBuf {
    root().join("scripts/client-library.d")
}

fn pins() -> Vec<Vec<String>> {
    let text = fs::read_to_string(directory().join("pins")).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect()
}

/// By name: what the line `# needs:` of each recipe says.
fn needs() -> Vec<(String, BTreeSet<String>)> {
    let recipes = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap());
    recipes
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            let needs = text.lines().find_map(|line| line.strip_prefix("# needs:"))?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((entry.file_name().into_string().unwrap(), needs))
        })
        .collect()
}

#[test]
fn pins_name_the_files_of_their_versions() {
    let pins = pins();
    assert!(pins.len() > 15, "{pins:?}");
    for pin in pins {
        let [kind, package, version, release, path, sum] = &pin[..] else {
            panic!("{pin:?} has not six words");
        };
        assert!(["bookworm", "trixie"].contains(&release.as_str()), "{pin:?}");
        assert!(path.starts_with("debian/pool/") || path.starts_with("debian-security/pool/"));
        assert!(
            sum.len() == 64 && sum.chars().all(|digit| digit.is_ascii_hexdigit()),
            "{pin:?}"
        );
        let without_epoch = version.split_once(':').map_or(version.as_str(), |(_, rest)| rest);
        let upstream = without_epoch
            .rsplit_once('-')
            .map_or(without_epoch, |(upstream, _)| upstream);
        let file = path.rsplit('/').next().unwrap();
        let expected = match kind.as_str() {
            "source" if file.contains(".orig.") => format!("{package}_{upstream}.orig.tar.xz"),
            "source" => format!("{package}_{without_epoch}.debian.tar.xz"),
            "static" => format!("{package}_{without_epoch}_amd64.deb"),
            _ => panic!("{pin:?} is of no known kind"),
        };
        assert_eq!(*file, expected, "{pin:?}");
    }
}

/// A pin without a recipe, or one that nothing needs, would be in the list of contents, but not in the library.
#[test]
fn all_that_is_pinned_is_linked_and_nothing_else() {
    let needs = needs();
    let recipes: BTreeSet<_> = needs.iter().map(|(name, _)| name.clone()).collect();
    let pinned = |kind: &str| -> BTreeSet<String> {
        let of_kind = pins().into_iter().filter(|pin| pin[0] == kind);
        of_kind.map(|pin| pin[1].clone()).collect()
    };
    let (sources, archives) = (pinned("source"), pinned("static"));
    let components = recipes.iter().filter(|name| *name != "link").cloned().collect();
    assert_eq!(sources, components);
    let (_, linked) = needs.iter().find(|(name, _)| name == "link").unwrap();
    assert_eq!(*linked, sources.union(&archives).cloned().collect());
    for (recipe, needs) in &needs {
        assert!(needs.is_subset(linked), "{recipe} needs what is not linked");
    }
}
