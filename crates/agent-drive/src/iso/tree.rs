//! The files and directories of an image, in the order ISO 9660 wants them.

use crate::drive_file::DriveFile;
use bosh_cpi::rpc::{Error, Result};
use std::collections::BTreeMap;

/// A directory or file. `sector` and `bytes` say where it lies once that is settled.
pub struct Node<'a> {
    /// What Rock Ridge calls it; empty for the root.
    pub name: &'a str,
    /// What plain ISO 9660 calls it.
    pub identifier: Vec<u8>,
    /// Index of the directory it is in; the root is in itself.
    pub parent: usize,
    pub contents: Contents<'a>,
    pub sector: usize,
    pub bytes: usize,
}

pub enum Contents<'a> {
    File(&'a [u8]),
    /// Indices, ordered by identifier.
    Directory(Vec<usize>),
}

impl Node<'_> {
    pub fn is_directory(&self) -> bool {
        matches!(self.contents, Contents::Directory(_))
    }
}

/// Path tables number directories with 16 bits.
const MAX_FILES: usize = 1000;

/// The root first, then level by level, each directory's entries together and by identifier.
///
/// Errors: `CpiError` for paths no drive can hold, and for more than 1000 files.
pub fn grow(files: &[DriveFile]) -> Result<Vec<Node<'_>>> {
    if files.len() > MAX_FILES {
        return Err(Error::cpi(format!(
            "{} files are more than a CD-ROM takes",
            files.len()
        )));
    }
    let mut paths = Vec::new();
    for file in files {
        paths.push((file.components()?, file.contents.as_slice()));
    }
    let mut nodes = vec![Node {
        name: "",
        identifier: vec![0],
        parent: 0,
        contents: Contents::Directory(Vec::new()),
        sector: 0,
        bytes: 0,
    }];
    let mut below: Vec<Vec<usize>> = vec![(0..paths.len()).collect()];
    let mut index = 0;
    let mut depth_of = vec![0];
    while index < nodes.len() {
        let depth = depth_of[index];
        let mut entries: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        if nodes[index].is_directory() {
            for path in &below[index] {
                entries.entry(paths[*path].0[depth]).or_default().push(*path);
            }
        }
        let mut children = Vec::new();
        for (name, beneath) in entries {
            let (path, contents) = &paths[beneath[0]];
            let is_file = path.len() == depth + 1;
            children.push((
                identifier(name, is_file, &children),
                name,
                beneath,
                is_file.then_some(*contents),
            ));
        }
        children.sort_by(|a, b| a.0.cmp(&b.0));
        for (identifier, name, beneath, file) in children {
            let child = nodes.len();
            if let Contents::Directory(listing) = &mut nodes[index].contents {
                listing.push(child);
            }
            let contents = file.map_or(Contents::Directory(Vec::new()), Contents::File);
            nodes.push(Node {
                name,
                identifier,
                parent: index,
                contents,
                sector: 0,
                bytes: 0,
            });
            below.push(beneath);
            depth_of.push(depth + 1);
        }
        index += 1;
    }
    Ok(nodes)
}

/// An ISO 9660 level 1 name (8.3, upper case) unlike those `taken` in the same directory.
fn identifier<T, U, V>(name: &str, is_file: bool, taken: &[(Vec<u8>, T, U, V)]) -> Vec<u8> {
    let legal = |text: &str, length: usize| -> String {
        let legal = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        };
        text.chars().map(legal).take(length).collect()
    };
    let (base, extension) = match name.rsplit_once('.') {
        Some((base, extension)) if is_file => (legal(base, 8), legal(extension, 3)),
        _ => (legal(name, 8), String::new()),
    };
    let spell = |base: &str| match is_file {
        true => format!("{base}.{extension};1").into_bytes(),
        false => base.as_bytes().to_vec(),
    };
    let free = |candidate: &Vec<u8>| taken.iter().all(|entry| entry.0 != *candidate);
    let numbered = (0..=MAX_FILES).map(|n| spell(&format!("{}{n:04}", &base[..base.len().min(4)])));
    std::iter::once(spell(&base))
        .chain(numbered)
        .find(free)
        .expect("more numbers than files")
}
