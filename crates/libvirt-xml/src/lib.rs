//! Libvirt's XML: the operator's templates, our own defaults, and what is enforced on either.
//!
//! A template says what the operator wants; what must hold is set on the rendered tree afterwards.

pub mod backup;
pub mod characters;
pub mod dhcp_host;
pub mod disk;
pub mod domain;
pub mod element;
pub mod interface;
mod mask;
pub mod metadata;
pub mod network;
pub mod platform;
pub mod template;
pub mod volume;

pub use mask::masked;
