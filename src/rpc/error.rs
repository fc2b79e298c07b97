//! The one error type of this crate: what a CPI response's `error` says.

use std::fmt::Display;

/// Result of everything that can end in a CPI error response.
pub type Result<T> = std::result::Result<T, Error>;

/// The error types the Director knows. Any other name becomes `UnknownError` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// The CPI itself is broken: bad JSON, bad configuration, a panic.
    CpiError,
    NotSupported,
    NotImplemented,
    /// Anything that went wrong in the cloud, that is, in libvirt.
    CloudError,
    VmNotFound,
    NetworkNotFound,
    NoDiskSpace,
    DiskNotAttached,
    DiskNotFound,
    VmCreationFailed,
}

impl ErrorType {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpiError => "Bosh::Clouds::CpiError",
            Self::NotSupported => "Bosh::Clouds::NotSupported",
            Self::NotImplemented => "Bosh::Clouds::NotImplemented",
            Self::CloudError => "Bosh::Clouds::CloudError",
            Self::VmNotFound => "Bosh::Clouds::VMNotFound",
            Self::NetworkNotFound => "Bosh::Clouds::NetworkNotFound",
            Self::NoDiskSpace => "Bosh::Clouds::NoDiskSpace",
            Self::DiskNotAttached => "Bosh::Clouds::DiskNotAttached",
            Self::DiskNotFound => "Bosh::Clouds::DiskNotFound",
            Self::VmCreationFailed => "Bosh::Clouds::VMCreationFailed",
        }
    }
}

/// What went wrong, as the caller will read it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub error_type: ErrorType,
    /// What was being done, to what, what happened, and what the operator can do. Never a secret.
    pub message: String,
    /// Whether the same call may succeed when made again.
    pub ok_to_retry: bool,
}

impl Error {
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self {
            error_type,
            message: message.into(),
            ok_to_retry: false,
        }
    }

    /// `CpiError`: the CPI, its configuration or the request itself is wrong.
    pub fn cpi(message: impl Into<String>) -> Self {
        Self::new(ErrorType::CpiError, message)
    }

    /// `CloudError`: libvirt or the host refused or failed.
    pub fn cloud(message: impl Into<String>) -> Self {
        Self::new(ErrorType::CloudError, message)
    }

    /// `NotSupported`: known, and deliberately not done.
    pub fn not_supported(message: impl Into<String>) -> Self {
        Self::new(ErrorType::NotSupported, message)
    }

    /// Marks the error as one that a second try of the same call may cure.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.ok_to_retry = true;
        self
    }

    /// Puts what was being done in front: `attaching disk… to vm-…: <what happened>`.
    #[must_use]
    pub fn during(mut self, what: impl Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same error under another type.
    #[must_use]
    pub fn with_type(mut self, error_type: ErrorType) -> Self {
        self.error_type = error_type;
        self
    }
}
