use std::fmt;
use std::str::FromStr;

/// A country by its ISO 3166-1 code of two letters. Upper and lower case are the same.
///
/// Publishers have codes of their own, too, such as `eu` for what is assigned to no one country.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountryCode([u8; 2]);

/// A text is not two letters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no country: write its ISO code of two letters, such as `de`", text.escape_debug())]
pub struct CodeError {
    /// The text, cut off where it is long.
    pub text: String,
}

impl CountryCode {
    /// The code in lower case.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// What ISO calls the country that many would write so: `gb` for `uk`.
    pub fn usual_mistake(self) -> Option<&'static str> {
        match self.as_str() {
            "uk" => Some("gb"),
            "el" => Some("gr"),
            _ => None,
        }
    }
}

impl FromStr for CountryCode {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        match text.as_bytes() {
            &[a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Ok(Self([a.to_ascii_lowercase(), b.to_ascii_lowercase()]))
            }
            _ => Err(CodeError { text: text.chars().take(40).collect() }),
        }
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CountryCode({self})")
    }
}
