use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// The name of an instance of Shield or Sentinel: 1 to 55 letters, digits, `-` and `_`.
///
/// The name is a component of paths in bpffs and below `/var/lib`, and a field of audit records.
///
/// ```
/// use ironclad_core::InstanceName;
///
/// let name: InstanceName = "edge-1".parse()?;
/// assert_eq!(name.as_str(), "edge-1");
/// assert!("../edge".parse::<InstanceName>().is_err());
/// # Ok::<(), ironclad_core::InstanceNameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct InstanceName(String);

impl InstanceName {
    /// The longest name in bytes. A name of a pin directory has 64, and a product appends a suffix.
    pub const MAX: usize = 64 - "-sentinel".len();

    /// Checks a name.
    ///
    /// # Errors
    /// [`InstanceNameError`] where `name` is empty, too long, or has another character.
    pub fn new(name: impl Into<String>) -> Result<Self, InstanceNameError> {
        let name = name.into();
        let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        match (1..=Self::MAX).contains(&name.len()) && name.bytes().all(fits) {
            true => Ok(Self(name)),
            false => Err(InstanceNameError { name }),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceName {
    type Err = InstanceNameError;

    fn from_str(name: &str) -> Result<Self, InstanceNameError> {
        Self::new(name)
    }
}

impl AsRef<str> for InstanceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A string is no name of an instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is no name for an instance: use 1 to {} letters, digits, `-` and `_`",
    InstanceName::MAX
)]
pub struct InstanceNameError {
    name: String,
}

impl InstanceNameError {
    /// The string.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_name_is_one_path_component() {
        let longest = "x".repeat(InstanceName::MAX);
        for good in ["a", "web-1", "_tmp", "-", &longest] {
            assert_eq!(InstanceName::new(good).unwrap().as_str(), good);
        }
        let longer = "x".repeat(InstanceName::MAX + 1);
        for bad in ["", ".", "..", "../x", "a/b", "/", "a b", "a\0", "ä", &longer] {
            let error = InstanceName::new(bad).unwrap_err();
            assert_eq!(error.name(), bad);
            let text = error.to_string();
            assert!(text.contains(&format!("`{bad}` is no name")), "{text}");
            assert!(text.contains("1 to 55 letters"), "{text}");
        }
    }
}
