//! An agent that applies signed policies alone, and ends by a signed token. Needs root and BPF LSM.
//!
//! ```sh
//! cargo run --release --features signed --example embed_signed -- FOLDER HOST [INTERFACE]
//! ```
//!
//! `FOLDER` has `ironclad.pub`, `policy.bundle`, `policy.bundle.minisig` and the trust store. Commands on
//! standard input: `apply` reads the bundle again, and `break-glass` reads `token` and `token.minisig`.
//!
//! SIGTERM or SIGINT ends it, and Shield and Sentinel with it. Sentinel denies both to other processes until a token
//! permits `stop`. Neither a command nor the end of standard input ends it: a process that closes the pipe would
//! uninstall Sentinel.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use ironclad::core::ErrorChain;
use ironclad::policy::bundle::TrustStore;
use ironclad::policy::document::Sources;
use ironclad::policy::{PolicyPart, PolicySource};
use ironclad::sentinel::Sentinel;
use ironclad::shield::Shield;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

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

/// Lines of standard input, and none at SIGTERM or SIGINT.
fn commands() -> Result<Receiver<Option<String>>, Failure> {
    let (sender, commands) = channel();
    let (mut signals, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, writer.try_clone()?)?;
    }
    let at_signal = sender.clone();
    std::thread::spawn(move || signals.read_exact(&mut [0]).map(|()| at_signal.send(None)));
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        // The main thread may have ended.
        lines.for_each(|line| drop(sender.send(Some(line))));
    });
    Ok(commands)
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
    // Before the start: a signal that comes meanwhile ends it in order, too.
    let commands = commands()?;

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
    for line in commands.iter().map_while(|command| command) {
        let done = match line.as_str() {
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
            other => Err(format!("unknown command {other}: use `apply` or `break-glass`").into()),
        };
        tell(done.unwrap_or_else(|error| ErrorChain::new(&*error).to_string()));
    }
    if let Some(shield) = shield {
        shield.stop()?;
    }
    Ok(sentinel.stop()?)
}
