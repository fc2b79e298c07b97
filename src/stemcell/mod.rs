//! Stemcells on the host: where they are, and what is remembered of them. `stemcell_image` reads their files.

mod find;
mod firmware;
mod light;
mod record;

pub use find::{find, get, require_kept};
pub use firmware::{firmware, look as look_for_firmware};
pub use light::{check_volume, named_volume};
pub use record::{NamedVolume, Record, volume_name};
