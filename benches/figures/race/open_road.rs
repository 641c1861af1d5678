//! The floor: no firewall. What a packet costs the network stack until it reaches a port without a socket.

use std::time::Duration;

use ironclad::core::Family;

use super::contender::{Contender, Firewall, Loaded};
use super::list::List;
use super::track::Track;
use crate::common::Result;

pub(super) struct OpenRoad;

impl Contender for OpenRoad {
    fn name(&self) -> &'static str {
        "no firewall"
    }

    fn how(&self, _: &List) -> &'static str {
        "up to UDP, without a socket"
    }

    fn load(&self, _: &Track<'_>, list: &List) -> Result<Loaded> {
        Ok(Loaded { took: Duration::ZERO, firewall: Box::new(Stack(list.family)) })
    }
}

struct Stack(Family);

impl Firewall for Stack {
    /// What the stack has handed to UDP, where no socket listens.
    fn dropped(&self) -> Result<u64> {
        let missing = "no count of delivered packets";
        match self.0 {
            Family::V4 => {
                let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
                // A line of names, then a line of numbers.
                let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
                let (names, numbers) = (lines.next().ok_or(missing)?, lines.next().ok_or(missing)?);
                let mut pairs = names.split(' ').zip(numbers.split(' '));
                let (_, number) = pairs.find(|(name, _)| *name == "InDelivers").ok_or(missing)?;
                Ok(number.parse()?)
            }
            Family::V6 => {
                let text = std::fs::read_to_string("/proc/thread-self/net/snmp6")?;
                let line = text.lines().find(|line| line.starts_with("Ip6InDelivers"));
                Ok(line.and_then(|line| line.split_whitespace().nth(1)).ok_or(missing)?.parse()?)
            }
        }
    }

    fn raise(&self) -> Result<()> {
        Ok(())
    }

    fn lower(&self) -> Result<()> {
        Ok(())
    }

    fn remove(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
