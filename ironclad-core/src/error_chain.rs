use std::error::Error;
use std::fmt;
use std::io;

/// An error and its sources on one line, joined by `: `.
///
/// The errors of this family name what failed and the next step, and leave the cause to
/// [`Error::source`]: `anyhow` and `eyre` print each cause once. A log line, an audit record or a
/// command that prints one line uses this adapter.
///
/// ```
/// use ironclad_core::ErrorChain;
///
/// let error = ironclad_core::CidrError::Address("x".to_owned());
/// assert_eq!(ErrorChain::new(&error).to_string(), error.to_string());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(&'a (dyn Error + 'static));

impl<'a> ErrorChain<'a> {
    /// Of an error and all its sources.
    pub fn new(error: &'a (dyn Error + 'static)) -> Self {
        Self(error)
    }

    /// The number of the first error of the operating system in the chain.
    pub fn errno(&self) -> Option<i32> {
        self.errors().find_map(os_error)
    }

    /// The error, its source, the source of that and so on.
    pub fn errors(&self) -> impl Iterator<Item = &'a (dyn Error + 'static)> + use<'a> {
        std::iter::successors(Some(self.0), |&error| error.source())
    }
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        for error in self.errors() {
            let text = error.to_string();
            // Errors of other crates may print their source themselves.
            if line.is_empty() {
                line = text;
            } else if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
        }
        f.write_str(&line)
    }
}

fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let error = error.downcast_ref::<io::Error>()?;
    // The source of a wrapping `io::Error` is the source of what it wraps, which would be missed.
    error.raw_os_error().or_else(|| ErrorChain::new(error.get_ref()?).errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("map `x`: update failed")]
        Context(#[source] io::Error),
        #[error("applying failed: {0}")]
        PrintsItsSource(#[source] Box<Layer>),
    }

    #[test]
    fn each_cause_prints_once() {
        let error = Layer::Context(io::Error::from_raw_os_error(1));
        let expected = format!("map `x`: update failed: {}", io::Error::from_raw_os_error(1));
        assert_eq!(ErrorChain::new(&error).to_string(), expected);
        let error = Layer::PrintsItsSource(Box::new(error));
        let chain = ErrorChain::new(&error);
        assert_eq!(chain.to_string(), format!("applying failed: {expected}"));
        assert_eq!(chain.errors().count(), 3);
    }

    #[test]
    fn the_os_error_is_found_anywhere_in_the_chain() {
        let wrapped = io::Error::other(Layer::Context(io::Error::from_raw_os_error(28)));
        assert_eq!(ErrorChain::new(&Layer::Context(wrapped)).errno(), Some(28));
        assert_eq!(ErrorChain::new(&Layer::Context(io::Error::other("none"))).errno(), None);
    }
}
