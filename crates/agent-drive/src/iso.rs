//! An ISO 9660 (ECMA-119) image with Rock Ridge names: a CD-ROM for a handful of small files.
//!
//! Rock Ridge (IEEE P1282) because Linux goes by it before anything else, and plain ISO 9660 can't spell
//! `meta-data.json`.

use super::drive_file::{DriveFile, refuse_duplicates};
use bosh_cpi::rpc::{Error, Result};

mod tree;
use tree::{Contents, Node};

const SECTOR: usize = 2048;
const SYSTEM_AREA_SECTORS: usize = 16;
/// System area, primary volume descriptor, terminator.
const PATH_TABLE_START: usize = SYSTEM_AREA_SECTORS + 2;
/// Far above what an agent's settings take, far below where 32-bit sizes end.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// 1 January 1980: the same files always give the same bytes.
const RECORDED_AT: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];

/// An ISO 9660 image holding `files`, readable by the guest's root alone.
///
/// Errors: `CpiError` for a label of more than 32 bytes or with anything but printable ASCII, for a path no
/// drive can hold, and for more than 64 MiB of files.
pub fn iso_image(volume_label: &str, files: &[DriveFile]) -> Result<Vec<u8>> {
    check_label(volume_label)?;
    refuse_duplicates(files)?;
    let bytes: usize = files.iter().map(|file| file.contents.len()).sum();
    if bytes > MAX_BYTES {
        return Err(Error::cpi(format!(
            "agent settings of {bytes} bytes do not fit a CD-ROM of 64 MiB"
        )));
    }
    let mut nodes = tree::grow(files)?;
    let path_table_bytes = path_table(&nodes, u32::to_le_bytes, u16::to_le_bytes).len();
    let path_table_sectors = path_table_bytes.div_ceil(SECTOR);
    let mut sectors = PATH_TABLE_START + 2 * path_table_sectors;
    for index in 0..nodes.len() {
        nodes[index].bytes = match &nodes[index].contents {
            Contents::File(contents) => contents.len(),
            Contents::Directory(_) => directory(&nodes, index).len(),
        };
        nodes[index].sector = sectors;
        sectors += nodes[index].bytes.div_ceil(SECTOR);
    }

    let mut image = vec![0; sectors * SECTOR];
    let mut put = |sector: usize, bytes: &[u8]| {
        image[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
    };
    put(
        SYSTEM_AREA_SECTORS,
        &primary_volume_descriptor(volume_label, &nodes, sectors, path_table_bytes),
    );
    put(SYSTEM_AREA_SECTORS + 1, b"\xffCD001\x01");
    put(
        PATH_TABLE_START,
        &path_table(&nodes, u32::to_le_bytes, u16::to_le_bytes),
    );
    put(
        PATH_TABLE_START + path_table_sectors,
        &path_table(&nodes, u32::to_be_bytes, u16::to_be_bytes),
    );
    for (index, node) in nodes.iter().enumerate() {
        match &node.contents {
            Contents::File(contents) => put(node.sector, contents),
            Contents::Directory(_) => put(node.sector, &directory(&nodes, index)),
        }
    }
    Ok(image)
}

fn check_label(label: &str) -> Result<()> {
    let printable = label.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if label.len() > 32 || label.trim().is_empty() || label.trim() != label || !printable {
        return Err(Error::cpi(format!(
            "CD-ROM label {label:?}: ISO 9660 takes 1 to 32 printable ASCII characters"
        )));
    }
    Ok(())
}

/// ECMA-119 section 8.4.
fn primary_volume_descriptor(
    label: &str,
    nodes: &[Node],
    sectors: usize,
    path_table_bytes: usize,
) -> Vec<u8> {
    let mut out = b"\x01CD001\x01\0".to_vec();
    out.extend(padded("LINUX", 32));
    out.extend(padded(label, 32));
    out.extend([0; 8]);
    out.extend(both32(sectors));
    out.extend([0; 32]);
    out.extend(both16(1)); // volume set size
    out.extend(both16(1)); // volume sequence number
    out.extend(both16(SECTOR));
    out.extend(both32(path_table_bytes));
    let big_endian_table = PATH_TABLE_START + path_table_bytes.div_ceil(SECTOR);
    out.extend((PATH_TABLE_START as u32).to_le_bytes());
    out.extend([0; 4]);
    out.extend((big_endian_table as u32).to_be_bytes());
    out.extend([0; 4]);
    out.extend(record(&nodes[0], b"\0", &[]));
    // Volume set, publisher, preparer, application: 4 x 128; copyright, abstract, bibliography: 3 x 37.
    out.extend(padded("", 4 * 128 + 3 * 37));
    for _ in 0..4 {
        out.extend(b"0000000000000000\0"); // a date not given
    }
    out.extend([1, 0]); // file structure version
    out
}

/// ECMA-119 section 9.4: directories by depth, then parent, then name, which is the order of `nodes`.
fn path_table(nodes: &[Node], four: fn(u32) -> [u8; 4], two: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let directories: Vec<usize> = (0..nodes.len()).filter(|i| nodes[*i].is_directory()).collect();
    let mut out = Vec::new();
    for index in &directories {
        let node = &nodes[*index];
        let parent = directories
            .iter()
            .position(|d| *d == node.parent)
            .expect("a parent is a directory");
        out.extend([node.identifier.len() as u8, 0]);
        out.extend(four(node.sector as u32));
        out.extend(two(parent as u16 + 1));
        out.extend(&node.identifier);
        out.resize(out.len().next_multiple_of(2), 0);
    }
    out
}

/// A directory's extent: whole sectors, no record across two of them (ECMA-119 section 6.8.1.1).
fn directory(nodes: &[Node], index: usize) -> Vec<u8> {
    let node = &nodes[index];
    let mut own = Vec::new();
    if index == 0 {
        own.extend(b"SP\x07\x01\xbe\xef\0"); // system use sharing protocol in use, nothing to skip
        own.extend(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
    }
    own.extend(posix(node, nodes));
    let parent = &nodes[node.parent];
    let mut out = record(node, b"\0", &own);
    out.extend(record(parent, b"\x01", &posix(parent, nodes)));
    let Contents::Directory(children) = &node.contents else {
        unreachable!("only a directory has a directory's extent");
    };
    for child in children.iter().map(|child| &nodes[*child]) {
        let mut system_use = posix(child, nodes);
        system_use.extend([b'N', b'M', 5 + child.name.len() as u8, 1, 0]);
        system_use.extend(child.name.as_bytes());
        let record = record(child, &child.identifier, &system_use);
        if out.len() % SECTOR + record.len() > SECTOR {
            out.resize(out.len().next_multiple_of(SECTOR), 0);
        }
        out.extend(record);
    }
    out.resize(out.len().next_multiple_of(SECTOR), 0);
    out
}

/// ECMA-119 section 9.1.
fn record(node: &Node, identifier: &[u8], system_use: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend(both32(node.sector));
    out.extend(both32(node.bytes));
    out.extend(RECORDED_AT);
    out.extend([if node.is_directory() { 2 } else { 0 }, 0, 0]);
    out.extend(both16(1));
    out.push(identifier.len() as u8);
    out.extend(identifier);
    out.resize(out.len().next_multiple_of(2), 0);
    out.extend(system_use);
    out.resize(out.len().next_multiple_of(2), 0);
    out[0] = out.len() as u8;
    out
}

/// The Rock Ridge `PX` field: mode, links, owner, group. For root alone, as the settings hold secrets.
fn posix(node: &Node, nodes: &[Node]) -> Vec<u8> {
    let (mode, links) = match &node.contents {
        Contents::File(_) => (0o100_400, 1),
        Contents::Directory(children) => (
            0o040_500,
            2 + children
                .iter()
                .filter(|child| nodes[**child].is_directory())
                .count(),
        ),
    };
    let mut out = b"PX\x24\x01".to_vec();
    for number in [mode, links, 0, 0] {
        out.extend(both32(number));
    }
    out
}

fn both16(number: usize) -> [u8; 4] {
    let number = number as u16;
    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
    [little[0], little[1], big[0], big[1]]
}

fn both32(number: usize) -> Vec<u8> {
    let number = number as u32;
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}

fn padded(text: &str, width: usize) -> Vec<u8> {
    format!("{text:width$}").into_bytes()
}

#[cfg(test)]
mod tests;
