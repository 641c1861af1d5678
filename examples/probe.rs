//! Prints the features of this kernel, with the reason for each that it lacks: as a table, or as JSON
//! with `--json`. With names of interfaces, prints their XDP features, too. Changes nothing.
use std::error::Error;
use std::process::ExitCode;

use ironclad::core::ErrorChain;
use ironclad::probe::{probe, probe_interface};

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("error: {}", ErrorChain::new(&*error));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut json, mut names) = (false, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--help" | "-h" => {
                println!("usage: probe [--json] [INTERFACE…]");
                return Ok(());
            }
            option if option.starts_with('-') => {
                return Err(format!("unknown option {option}: see --help").into());
            }
            name => names.push(name.to_owned()),
        }
    }
    let probe = probe();
    let interfaces =
        names.iter().map(|name| probe_interface(name)).collect::<Result<Vec<_>, _>>()?;
    if json {
        let mut value = serde_json::to_value(&probe)?;
        value["interfaces"] = serde_json::to_value(&interfaces)?;
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        println!("{probe}");
        interfaces.iter().for_each(|interface| println!("\n{interface}"));
    }
    Ok(())
}
