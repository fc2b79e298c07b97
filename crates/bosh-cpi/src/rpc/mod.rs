//! The envelope around every call: one JSON request in, one JSON response out.

mod arguments;
mod error;
mod request;
mod response;
pub mod summary;

pub use arguments::Arguments;
pub use error::{Cause, Error, ErrorType, Result};
pub use request::{HIGHEST_API_VERSION, Request};
pub use response::Response;
