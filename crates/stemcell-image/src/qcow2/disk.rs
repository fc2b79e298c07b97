//! A few bytes of the disk in a qcow2 file, by way of its tables. A stream of the file, as an upload reads it, does not
//! have them in the disk's order.

use std::io::Read;

use flate2::read::DeflateDecoder;

use super::Qcow2Header;
use super::tables::{IS_COMPRESSED, IS_ZERO, OFFSET};
use crate::bytes::be_u64;
use crate::firmware::ReadAt;
use bosh_cpi::rpc::{Error, Result};

/// How many parts a cluster has that are there or not by themselves, in an image with extended entries.
const SUBCLUSTERS: u64 = 32;

/// So many bytes of the disk at this offset; fewer where it ends.
///
/// # Errors
/// What `file` fails with; `CloudError` for what does not decompress, as zstd.
pub fn read(file: &mut ReadAt<'_>, header: &Qcow2Header, offset: u64, length: u64) -> Result<Vec<u8>> {
    let cluster = 1u64 << header.cluster_bits;
    let unit = if header.extended {
        cluster / SUBCLUSTERS
    } else {
        cluster
    };
    let end = offset.saturating_add(length).min(header.virtual_size);
    let mut bytes = Vec::new();
    let mut at = offset;
    while at < end {
        let now = (unit - at % unit).min(end - at);
        let mut part = part(file, header, at, now)?;
        // What is not there is zeros, also behind the end of the file, where the last cluster need not be whole.
        part.resize(usize::try_from(now).unwrap_or(0), 0);
        bytes.append(&mut part);
        at += now;
    }
    Ok(bytes)
}

/// As `read`, within one cluster or subcluster; less where there are zeros.
fn part(file: &mut ReadAt<'_>, header: &Qcow2Header, at: u64, length: u64) -> Result<Vec<u8>> {
    let cluster = 1u64 << header.cluster_bits;
    let entry_bytes = if header.extended { 16 } else { 8 };
    let entries = cluster / entry_bytes;
    let (number, within) = (at / cluster, at % cluster);
    let (first, second) = (number / entries, number % entries);
    if first >= u64::from(header.first_entries) {
        return Ok(Vec::new());
    }
    let first_entry = file(header.first_table.saturating_add(8 * first), 8)?;
    let table = be_u64(&first_entry, 0) & OFFSET;
    if table == 0 {
        return Ok(Vec::new());
    }
    let entry = file(table + second * entry_bytes, entry_bytes)?;
    let (cluster_at, parts) = (be_u64(&entry, 0), be_u64(&entry, 8));
    if cluster_at & IS_COMPRESSED != 0 {
        return inflated(file, header, cluster_at, within, length);
    }
    let offset = cluster_at & OFFSET;
    let is_there = if header.extended {
        parts & (1 << (within / (cluster / SUBCLUSTERS))) != 0
    } else {
        cluster_at & IS_ZERO == 0
    };
    if offset == 0 || !is_there {
        return Ok(Vec::new());
    }
    file(offset + within, length)
}

fn inflated(
    file: &mut ReadAt<'_>,
    header: &Qcow2Header,
    entry: u64,
    within: u64,
    length: u64,
) -> Result<Vec<u8>> {
    let offset_bits = 70 - header.cluster_bits;
    let offset = entry & ((1 << offset_bits) - 1);
    let sectors = ((entry & (IS_COMPRESSED - 1)) >> offset_bits) + 1;
    let packed = file(offset, sectors * 512 - offset % 512)?;
    let mut cluster = Vec::new();
    DeflateDecoder::new(packed.as_slice())
        .take(within + length)
        .read_to_end(&mut cluster)
        .map_err(|e| Error::cloud(format!("a cluster of the qcow2 does not decompress: {e}")))?;
    let from = usize::try_from(within).unwrap_or(usize::MAX).min(cluster.len());
    Ok(cluster.split_off(from))
}
