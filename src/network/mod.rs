//! Networks as operators describe them: cloud properties, and what must be there before a VM is made.

mod presence;
mod properties;

pub use presence::require;
#[cfg(test)]
pub use properties::DirectMode;
pub use properties::{Bandwidth, Link, NicProperties, Rate, parse as parse_properties};
