//! A table that is redrawn in its place, where standard output is a terminal.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ironclad::shield::Shield;

use crate::table::{Table, verdicts};

/// Between two drawings.
pub(crate) const PERIOD: Duration = Duration::from_millis(200);

/// Where a table is drawn.
pub(crate) struct Live {
    /// The table, and how many lines of it are above the cursor.
    text: String,
    drawn: usize,
}

impl Live {
    /// None where standard output is no terminal, or one that cannot move its cursor.
    pub(crate) fn open() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        (stdout().is_terminal() && !is_dumb).then(|| Self { text: String::new(), drawn: 0 })
    }

    /// Draws `text` over what was drawn before. Lines that are too long or too many are cut: the
    /// cursor could not go back to them.
    pub(crate) fn draw(&mut self, text: &str) {
        let size = rustix::termios::tcgetwinsize(stdout()).ok();
        // A pseudo-terminal that was never given a size has zeroes.
        let most = |cells: Option<u16>, usual| match cells.map_or(0, usize::from) {
            0 => usual,
            cells => cells,
        };
        let rows = most(size.map(|size| size.ws_row), 24) - 1;
        let columns = most(size.map(|size| size.ws_col), 80);
        let mut out = self.back();
        (self.text, self.drawn) = (text.to_owned(), 0);
        for line in text.lines().take(rows) {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{}", line.chars().take(columns).collect::<String>());
            self.drawn += 1;
        }
        put(&out);
    }

    /// Prints what stays, above the table.
    pub(crate) fn above(&mut self, line: &str) {
        put(&format!("{}{line}\n", self.back()));
        self.drawn = 0;
        let text = std::mem::take(&mut self.text);
        self.draw(&text);
    }

    /// To the first line of the table, without the table.
    fn back(&self) -> String {
        match self.drawn {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

/// A line. A closed pipe ends no protection.
pub(crate) fn tell(line: &dyn std::fmt::Display) {
    put(&format!("{line}\n"));
}

/// A terminal that has gone away ends the program by a signal, not by this.
fn put(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Draws the firewall's table while `work` runs, and once more at its end.
pub(crate) fn during<T>(mut live: Live, shield: &Shield, work: impl FnOnce() -> T) -> T {
    /// Ends the drawing also where `work` panics.
    struct Stop<'a>(&'a AtomicBool, std::thread::Thread);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
            self.1.unpark();
        }
    }

    let stop = AtomicBool::new(false);
    let mut table = Table::default();
    std::thread::scope(|scope| {
        let drawing = scope.spawn(|| {
            loop {
                let is_last = stop.load(Ordering::Acquire);
                // What the kernel refuses now it refuses to the caller, too.
                if let Ok(counters) = shield.counters() {
                    let text = if is_last { verdicts(&counters) } else { table.text(&counters) };
                    live.draw(&text);
                }
                if is_last {
                    return;
                }
                std::thread::park_timeout(PERIOD);
            }
        });
        let _stop = Stop(&stop, drawing.thread().clone());
        work()
    })
}
