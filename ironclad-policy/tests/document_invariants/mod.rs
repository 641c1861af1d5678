//! What holds for every policy file, whatever bytes it has. Shared with the fuzz target `document`.

use std::io;

use ironclad_core::Cidr;
use ironclad_policy::AddressList;
use ironclad_policy::document::{Accounts, Document, DocumentError, Problem, Sources};
use ironclad_policy::socket::SHA256_MISMATCH;

/// Everybody is there.
struct Everybody;

impl Accounts for Everybody {
    fn uid(&self, name: &str) -> io::Result<Option<u32>> {
        Ok(Some(name.len() as u32))
    }

    fn gid(&self, name: &str) -> io::Result<Option<u32>> {
        self.uid(name)
    }
}

/// Reads `bytes`, compiles what can be compiled without a file, and panics where an error names a
/// place that there is not, or would reach a terminal with more than its text.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let document = match Document::parse("p.yaml", text) {
        Ok(document) => document,
        Err(error) => return is_well_reported(&error, text),
    };
    let again = Document::parse("p.yaml", text).expect("it was read before");
    assert_eq!(format!("{document:?}"), format!("{again:?}"));

    // Paths that another process chose are not opened.
    let reads_files = document.countries.is_some()
        || document.addresses.values().any(|addresses| !addresses.lists.is_empty())
        || document.sets.iter().any(|set| !set.lists.is_empty());
    if reads_files {
        return;
    }
    let cidr: Cidr = "192.0.2.0/24".parse().expect("a prefix");
    let mut feeds = |name: &str| (name != "none").then(|| AddressList::from_cidrs(name, [cidr]));
    let mut sources = Sources::new("/nowhere").feeds(&mut feeds).accounts(&Everybody);
    match document.compile(&mut sources) {
        Ok(policy) => {
            let rules = policy.sockets().map_or(0, |sockets| {
                sockets.rules().iter().filter(|rule| rule.id != SHA256_MISMATCH).count()
            });
            assert!(rules == document.rules.len() || rules == 0);
        }
        Err(error) => {
            let is_of_names = matches!(
                error.problem(),
                Problem::Policy(_) | Problem::UnknownName { .. } | Problem::Feed { .. }
            );
            assert!(is_of_names, "found too late: {error}");
            is_well_reported(&error, text);
        }
    }
}

fn is_well_reported(error: &DocumentError, text: &str) {
    let said = error.to_string();
    assert!(said.starts_with("p.yaml:"), "{said:?}");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
    assert!(said.len() < 4096, "{} bytes", said.len());
    if let Some(place) = error.place() {
        // Behind the last character is a place, too: there something is missing.
        let text = text.replace("\r\n", "\n");
        let lines: Vec<&str> = text.split(['\n', '\r']).collect();
        let line = lines.get(place.line as usize - 1).copied().unwrap_or_default();
        assert!(place.line as usize <= lines.len() + 1, "{said:?}");
        assert!(place.column as usize <= line.chars().count() + 1, "{said:?}");
    }
}
