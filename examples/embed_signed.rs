//! An agent that applies signed policies alone, and ends by a signed token. Needs root and BPF LSM.
//!
//! ```sh
//! cargo run --release --features signed --example embed_signed -- FOLDER HOST [INTERFACE]
//! ```
//!
//! `FOLDER` has `ironclad.pub`, `policy.bundle`, `policy.bundle.minisig` and the trust store. Commands on
//! standard input: `apply` reads the bundle again, `break-glass` reads `token` and `token.minisig`, and
//! `stop`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use ironclad::core::ErrorChain;
use ironclad::policy::bundle::TrustStore;
use ironclad::policy::document::Sources;
use ironclad::policy::{PolicyPart, PolicySource};
use ironclad::sentinel::Sentinel;
use ironclad::shield::Shield;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("error: {}", ErrorChain::new(&*error));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let usage = "usage: embed_signed FOLDER HOST [INTERFACE]";
    let folder = PathBuf::from(args.next().ok_or(usage)?);
    let (host, interface) = (args.next().ok_or(usage)?, args.next());
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|e| format!("reading {}: {e}", path.display()))
    };
    let key = String::from_utf8(read("ironclad.pub")?)?.parse()?;
    let trust = TrustStore::open(&folder.join("trust.json"), &host, [key], 1)?;
    let trust = Arc::new(Mutex::new(trust));
    let signed = |name: &str| -> Result<(Vec<u8>, String), Failure> {
        let signature = String::from_utf8(read(&format!("{name}.minisig"))?)?;
        Ok((read(name)?, signature))
    };
    let sources = || Sources::new(&folder);

    let (bundle, signature) = signed("policy.bundle")?;
    let builder = Sentinel::builder("embed-signed").signed(Arc::clone(&trust));
    let builder = match interface {
        // Shield has the same bundles.
        Some(_) => builder.unenforced([PolicyPart::Packets]),
        None => builder,
    };
    let sentinel = builder.start(PolicySource::signed(&bundle, &[&signature], &mut sources()))?;
    let shield = match interface {
        Some(name) => {
            // Sentinel has the same bundles.
            let builder = Shield::builder("embed-signed").unenforced([PolicyPart::Files]);
            let builder = builder.interface(name).signed(trust);
            Some(builder.start(PolicySource::signed(&bundle, &[&signature], &mut sources()))?)
        }
        None => None,
    };
    // A closed pipe ends no protection.
    let tell = |line: String| drop(writeln!(std::io::stdout(), "{line}"));
    tell(format!("{:?}", sentinel.status()?.provenance));
    for line in std::io::stdin().lines() {
        let done = match line?.as_str() {
            "apply" => signed("policy.bundle").and_then(|(bundle, signature)| {
                sentinel.apply(PolicySource::signed(&bundle, &[&signature], &mut sources()))?;
                if let Some(shield) = &shield {
                    shield.apply(PolicySource::signed(&bundle, &[&signature], &mut sources()))?;
                }
                Ok("applied".to_owned())
            }),
            "break-glass" => signed("token").and_then(|(token, signature)| {
                Ok(sentinel.break_glass(&token, &[&signature])?.permits.to_string())
            }),
            "stop" => break,
            other => {
                Err(format!("unknown command {other}: use `apply`, `break-glass` or `stop`").into())
            }
        };
        tell(done.unwrap_or_else(|error| ErrorChain::new(&*error).to_string()));
    }
    if let Some(shield) = shield {
        shield.stop()?;
    }
    Ok(sentinel.stop()?)
}
