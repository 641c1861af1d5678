//! What holds for the headers of bundles, for tokens and for keys, whatever bytes they have. Shared with
//! the fuzz target `bundle`.

use ironclad_policy::bundle::{BundleError, Header, PublicKey, Token};

/// Reads `bytes` as each, and panics where what is read is not written as it was, or an error names a
/// line that there is not.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Header::split(text) {
        Ok((header, policy)) => {
            assert_eq!(format!("{header}\n{policy}"), text);
            assert!(header.serial > 0 && header.made < header.expires);
            assert!(header.threshold.unwrap_or(1) <= header.next_keys.len().max(1));
        }
        Err(error) => is_well_reported(&error, text),
    }
    match text.parse::<Token>() {
        Ok(token) => {
            assert_eq!(token.to_string(), text);
            assert!(Header::split(text).is_err(), "one passes for the other");
        }
        Err(error) => is_well_reported(&error, text),
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        let again: PublicKey = key.to_string().parse().expect("as it was written");
        assert_eq!((again.id(), &again), (key.id(), &key));
    }
}

fn is_well_reported(error: &BundleError, text: &str) {
    let BundleError::Form { line, .. } = error else { panic!("{error:?}") };
    // Behind the last line is a place, too: there something is missing.
    assert!((1..=text.split('\n').count() + 1).contains(line), "{error}");
}
