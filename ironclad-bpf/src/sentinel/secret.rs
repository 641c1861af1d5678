use std::fmt;
use std::io;

use ironclad_core::abi::{self, SecretKey};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::BpfError;
use crate::sys;

/// A secret that entitles its bearer, once. Its memory is cleared when it is dropped.
pub struct Secret(SecretKey);

impl Secret {
    /// A new one, of 32 random bytes.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel gives none.
    pub fn new() -> Result<Self, BpfError> {
        let mut bytes = [0; abi::SENTINEL_SECRET];
        sys::random(&mut bytes).map_err(|source| BpfError::system("making a secret", source))?;
        Ok(Self::from_bytes(bytes))
    }

    /// One that was stored.
    pub fn from_bytes(bytes: [u8; abi::SENTINEL_SECRET]) -> Self {
        Self(SecretKey::read_from_bytes(&bytes).unwrap_or_default())
    }

    /// To be stored where no other process reads it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(super) fn key(&self) -> &SecretKey {
        &self.0
    }

    /// Presents it to the kernel: if it is good, this process is trusted from now on, and the secret
    /// is no longer accepted. The kernel's answer does not say which.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where a canary was sent instead.
    pub fn present(&self) -> Result<(), BpfError> {
        match sys::hello(&self.0) {
            // It knows no such option, whatever Sentinel has made of it.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            Err(source) => Err(BpfError::system("presenting a secret", source)),
            Ok(()) => {
                let source = io::Error::other("another program answers this prctl(2)");
                Err(BpfError::system("presenting a secret", source))
            }
        }
    }
}

/// Says nothing of it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        sys::clear(self.0.as_mut_bytes());
    }
}
