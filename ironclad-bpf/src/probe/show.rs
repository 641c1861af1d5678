//! A probe as a table for people.
use std::fmt;

use super::feature::Feature;
use super::interface::InterfaceProbe;
use super::{Probe, State};

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {} on {}", self.kernel, self.machine)?;
        for (title, features) in [
            ("System", &self.system),
            ("Hooks", &self.hooks),
            ("Program types", &self.program_types),
            ("Map types", &self.map_types),
            ("Helpers", &self.helpers),
        ] {
            table(f, title, features)?;
        }
        let features =
            [&self.system, &self.hooks, &self.program_types, &self.map_types, &self.helpers];
        let count =
            |state| features.iter().flat_map(|it| it.iter()).filter(|it| it.state == state).count();
        write!(
            f,
            "\n{} available, {} unavailable, {} refused, {} unknown",
            count(State::Available),
            count(State::Unavailable),
            count(State::Refused),
            count(State::Unknown)
        )
    }
}

impl fmt::Display for InterfaceProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interface {} (number {}", self.name, self.index)?;
        if let Some(driver) = &self.driver {
            write!(f, ", driver {driver}")?;
        }
        writeln!(f, ")")?;
        for (mode, id) in &self.programs {
            writeln!(f, "  carries program {id} ({mode})")?;
        }
        table(f, "XDP", &self.features)
    }
}

fn table(f: &mut fmt::Formatter<'_>, title: &str, features: &[Feature]) -> fmt::Result {
    let width = features.iter().map(|feature| feature.name.len()).max().unwrap_or_default();
    writeln!(f, "\n{title}")?;
    for Feature { name, state, reason } in features {
        match reason {
            Some(reason) => writeln!(f, "  {name:width$}  {state:11}  {reason}")?,
            None => writeln!(f, "  {name:width$}  {state}")?,
        }
    }
    Ok(())
}
