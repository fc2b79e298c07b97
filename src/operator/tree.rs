//! `cpi list --tree`: which VMs are built on which stemcell, and which disks they have.

use std::collections::BTreeSet;

use super::host::Host;
use super::table::{cut, width};
use super::views::{self, Disk, Owner, Vm};
use bosh_cpi::logging::on_one_line;
use bosh_cpi::measures::size;
use bosh_cpi::rpc::Result;
use libvirt_host::Connection;

pub fn render(libvirt: &Connection, host: &Host) -> Result<String> {
    let vms = views::vms(host);
    let mut disks = views::disks(libvirt, host, false)?;
    disks.extend(views::disks(libvirt, host, true)?);
    let mut roots = Vec::new();
    let mut placed = BTreeSet::new();
    for stemcell in views::stemcells(libvirt, host)? {
        let of_it = vms.iter().filter(|vm| stemcell.vms.contains(&vm.cid));
        let sizes = sizes(stemcell.allocation, stemcell.capacity);
        roots.push(Node {
            text: joined(&[&stemcell.cid, &sizes, &stemcell.name]),
            children: of_it.map(|vm| vm_node(vm, &disks)).collect(),
        });
        placed.extend(stemcell.vms);
    }
    let others = vms.iter().filter(|vm| !placed.contains(&vm.cid));
    roots.extend(group(
        "other boot disks",
        others.map(|vm| vm_node(vm, &disks)).collect(),
    ));
    // A disk that is attached to somebody else's VM would be seen nowhere else.
    let seen: BTreeSet<&String> = vms.iter().flat_map(|vm| &vm.disks).collect();
    let unseen = disks.iter().filter(|disk| !seen.contains(&disk.cid));
    roots.extend(group(
        "not attached",
        unseen.map(|disk| disk_node(disk, &Owner::default())).collect(),
    ));
    roots.extend(group(
        "not shown",
        host.hidden
            .iter()
            .map(|pool| Node {
                text: pool.with_remedy(),
                children: Vec::new(),
            })
            .collect(),
    ));
    if roots.is_empty() {
        return Ok("Nothing of the CPI's is here\n".to_owned());
    }
    let mut text = String::new();
    for root in &roots {
        root.write("", "", &mut text);
    }
    Ok(text)
}

struct Node {
    text: String,
    children: Vec<Node>,
}

impl Node {
    fn write(&self, first: &str, rest: &str, out: &mut String) {
        out.push_str(&cut(&format!("{first}{}", on_one_line(&self.text)), width()));
        out.push('\n');
        for (number, child) in self.children.iter().enumerate() {
            let (branch, below) = if number + 1 == self.children.len() {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            child.write(&format!("{rest}{branch}"), &format!("{rest}{below}"), out);
        }
    }
}

fn group(text: &str, children: Vec<Node>) -> Option<Node> {
    (!children.is_empty()).then(|| Node {
        text: format!("({text})"),
        children,
    })
}

fn vm_node(vm: &Vm, disks: &[Disk]) -> Node {
    let of_it = disks.iter().filter(|disk| vm.disks.contains(&disk.cid));
    Node {
        text: joined(&[
            &vm.cid,
            &vm.status.to_string(),
            &vm.owner.name(),
            &vm.notes.join("; "),
        ]),
        children: of_it.map(|disk| disk_node(disk, &vm.owner)).collect(),
    }
}

/// Whose a disk is, unless it is whose the VM is that it is shown at.
fn disk_node(disk: &Disk, shown: &Owner) -> Node {
    let owner = if disk.owner == *shown {
        String::new()
    } else {
        disk.owner.name()
    };
    let sizes = match (disk.allocation, disk.capacity) {
        (Some(allocation), Some(capacity)) => sizes(allocation, capacity),
        _ => String::new(),
    };
    Node {
        text: joined(&[&disk.cid, &sizes, &disk.notes.join("; "), &owner]),
        children: Vec::new(),
    }
}

fn sizes(allocation: u64, capacity: u64) -> String {
    format!("{} of {}", size(allocation), size(capacity))
}

fn joined(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join("  ")
}
