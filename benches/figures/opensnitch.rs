//! OpenSnitch beside us: its daemon, in a namespace of the lab, with one rule that allows.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use ironclad_lab::Namespace;

use crate::common::Result;

/// What `cargo xtask figures` has unpacked.
pub(crate) fn root() -> Option<PathBuf> {
    std::env::var_os("IRONCLAD_OPENSNITCH").map(PathBuf::from)
}

/// The daemon, which decides each new connection of the namespace.
pub(crate) struct OpenSnitch {
    daemon: Child,
    _rules: tempfile::TempDir,
}

impl OpenSnitch {
    /// Starts it and waits until it answers. Its queue and its rules are the namespace's; it looks
    /// processes up in `/proc` and loads no eBPF of its own.
    pub(crate) fn start(net: &Namespace, root: &std::path::Path) -> Result<Self> {
        let rules = tempfile::tempdir()?;
        let data = std::env::current_exe()?;
        let rule = serde_json::json!({
            "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
            "name": "figures", "enabled": true, "precedence": false, "action": "allow",
            "duration": "always",
            "operator": {
                "type": "simple", "operand": "process.path", "sensitive": false, "data": data,
                "list": [],
            },
        });
        std::fs::write(rules.path().join("figures.json"), rule.to_string())?;
        let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        let mut command = Command::new(root.join("usr/bin/opensnitchd"));
        command
            .args(["-process-monitor-method", "proc", "-no-live-reload", "-rules-path"])
            .arg(rules.path())
            .args(["-ui-socket", &format!("unix://{}/none", rules.path().display())])
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut daemon = net.run(|| command.spawn())??;
        let mut said = BufReader::new(daemon.stdout.take().ok_or("no standard output")?).lines();
        let this = Self { daemon, _rules: rules };
        for line in said.by_ref() {
            if line?.contains("Running on netfilter queue") {
                // It would end where its output is not read.
                std::thread::spawn(move || said.for_each(drop));
                return Ok(this);
            }
        }
        Err("OpenSnitch ended before it was ready".into())
    }

    /// How many packets it has decided.
    pub(crate) fn decided(net: &Namespace) -> Result<u64> {
        let queues = net
            .run(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue"))??;
        // The last number but one of a queue's line is that of its last packet.
        let last = |line: &str| line.split_whitespace().nth(7)?.parse::<u64>().ok();
        Ok(queues.lines().filter_map(last).sum())
    }
}

impl Drop for OpenSnitch {
    fn drop(&mut self) {
        // It may have ended already. What it set up ends with the namespace.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
