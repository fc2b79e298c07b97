//! The repository as a BOSH release: job, package, manifests and scripts, in the ways in which bosh uses them. Needs
//! neither libvirtd nor root.

mod bosh;
mod client_library;
mod cloud_properties;
mod deployment;
mod job_spec;
mod manifests;
mod ops;
mod packaging;
mod scripts;
mod templates;
