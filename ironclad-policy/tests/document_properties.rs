//! Policy files: what holds for every text.
#![cfg(feature = "document")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;

mod document_invariants;

#[test]
fn the_fuzz_corpus_keeps_the_invariants() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/document");
    let Ok(files) = fs::read_dir(&dir) else {
        println!("SKIP the_fuzz_corpus_keeps_the_invariants: no {}", dir.display());
        return;
    };
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        println!("{}", path.display());
        document_invariants::check(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} files in the corpus");
}

/// A line of a policy, or nearly.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "(default|malformed|dry-run|backend|gateways|x): ?[a-z0-9.:\\[\\], -]{0,12}",
        "(sets|tuples|rules|addresses|subjects|limits|feeds):",
        "  - \\{ (id|rule): [0-9]{1,2}, name: [a-z]{0,3}, action: (deny|allow|drop|log)(, (to|who|limit|ports|protocol|direction): [a-z0-9-]{1,4})? \\}",
        "  [ab]: \\{ (exe|uid|cidrs|feeds|per-second|per|burst|source|refresh|max-bytes): [a-z0-9/.-]{1,9} \\}",
        "  - &[ab] [a-z]",
        "  - \\*[ab]",
        "[ -]{0,6}[a-z&*!|>%@`\"'\\[\\]{}#:,?-]{0,10}",
    ]
}

proptest! {
    #[test]
    fn any_text_keeps_the_invariants(text in "\\PC{0,200}") {
        document_invariants::check(text.as_bytes());
    }

    #[test]
    fn any_lines_keep_the_invariants(lines in prop::collection::vec(line(), 0..12)) {
        document_invariants::check(lines.join("\n").as_bytes());
    }
}
