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

/// Why libvirt failed, where the CPI decides by that. Told by `libvirt/errors.rs` alone, never read out of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cause {
    /// Nothing that a decision depends on.
    #[default]
    Other,
    /// The storage has no room left.
    Full,
    /// The host's file system takes no writes.
    ReadOnlyFiles,
    /// Another job works on the pool, volume or VM and ends by itself.
    Busy,
    /// A pool or network is inactive.
    Stopped,
    /// The connection to libvirtd has ended.
    Lost,
    /// Nobody listens: libvirtd, or one of several daemons on the host, is stopped.
    DaemonStopped,
    /// The daemon refuses this user.
    Denied,
    /// The connection is for reading only.
    ReadOnlyConnection,
    /// libvirt on the host lacks the call or flag.
    TooOld,
    /// The address range, bridge or name is in use.
    InUse,
    /// Copies share the data of the Ceph image.
    Shared,
    /// Ceph's monitors do not answer.
    SilentCeph,
    /// QEMU has ended, as far as libvirt's error shows.
    QemuGone,
    /// QEMU cannot use KVM.
    NoKvm,
}

impl Cause {
    /// Whether the same call may succeed when made again.
    pub fn passes(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Stopped | Self::Lost | Self::DaemonStopped | Self::SilentCeph
        )
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
    /// For decisions within the CPI; the caller does not see it.
    pub cause: Cause,
}

impl Error {
    pub fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self {
            error_type,
            message: message.into(),
            ok_to_retry: false,
            cause: Cause::Other,
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

    /// Says why libvirt failed, and with that whether the same call may succeed when made again.
    #[must_use]
    pub fn because(self, cause: Cause) -> Self {
        Self {
            cause,
            ok_to_retry: cause.passes(),
            ..self
        }
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
