//! `calculate_vm_cloud_properties({ram, cpu, ephemeral_disk_size})`: VM cloud properties for what was asked, if one
//! VM of that size fits the host at all.

use serde_json::Value;

use super::Cpi;
use crate::vm::VmProperties;
use bosh_cpi::cloud_properties::CloudProperties;
use bosh_cpi::rpc::{Arguments, Error, Result};

const MIB: u64 = 1024 * 1024;

pub fn call(mut arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    let requirements = arguments.object("desired_instance_size")?;
    arguments.end()?;
    let mut requirements = CloudProperties::new("argument 1 (desired_instance_size)", requirements);
    let missing = |name: &str| Error::cloud(format!("argument 1 (desired_instance_size): {name} is missing"));
    let memory = requirements.integer("ram", 1)?.ok_or_else(|| missing("ram"))?;
    let cpu = requirements.integer("cpu", 1)?.ok_or_else(|| missing("cpu"))?;
    let ephemeral_disk = requirements
        .integer("ephemeral_disk_size", 0)?
        .ok_or_else(|| missing("ephemeral_disk_size"))?;
    requirements.end()?;

    let libvirt = cpi.libvirt()?;
    let settings = &cpi.config.settings;
    let (host_cpus, host_memory) = libvirt.host_size()?;
    let vm_cpus = libvirt.max_vcpus(settings.domain_type)?;
    let pool = libvirt.pool(settings.stemcell_pool())?;
    let pool_size = pool.capacity()? / MIB;
    for (what, asked, there) in [
        ("CPUs", cpu, host_cpus.min(vm_cpus)),
        ("MiB of memory", memory, host_memory),
        ("MiB of ephemeral disk", ephemeral_disk, pool_size),
    ] {
        if asked > there {
            return Err(Error::cloud(format!(
                "argument 1 (desired_instance_size): {asked} {what} asked for, but a VM at {} can have {there}",
                libvirt.uri
            )));
        }
    }
    Ok(VmProperties::of_size(cpu, memory, ephemeral_disk))
}
