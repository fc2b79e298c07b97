//! What is the same for every CPI: the envelope of a call, its errors, cids and cloud properties, the log, and signals.

pub mod cid;
pub mod cloud_properties;
pub mod interrupt;
pub mod logging;
pub mod measures;
pub mod progress;
pub mod rpc;
pub mod sparse;
