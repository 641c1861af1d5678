//! Checks an audit file: `verify_audit FILE [SEQ:HASH]`. Prints the last record's anchor; exit code
//! 1 where the chain is broken, 2 for bad arguments.

use std::process::ExitCode;

use ironclad_core::audit::{Anchor, verify_file};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(path), anchor, None) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: verify_audit FILE [SEQ:HASH]");
        return ExitCode::from(2);
    };
    let anchor = match anchor.map(|text| text.parse::<Anchor>()).transpose() {
        Ok(anchor) => anchor,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match verify_file(&path, anchor) {
        Ok(verified) => {
            println!("{}", verified.anchor());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}
