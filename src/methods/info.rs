//! `info`: what this CPI speaks. Works without libvirt.

use serde_json::{Value, json};

use super::Cpi;
use bosh_cpi::rpc::{Arguments, HIGHEST_API_VERSION, Result};

pub fn call(arguments: Arguments, cpi: &Cpi) -> Result<Value> {
    arguments.end()?;
    Ok(json!({"api_version": HIGHEST_API_VERSION, "stemcell_formats": cpi.config.stemcell.formats}))
}
