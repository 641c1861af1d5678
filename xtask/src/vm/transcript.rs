//! What the machine says on its second serial line: each command's output between marks that no
//! command can guess.

/// A command that was run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ran {
    pub(crate) output: String,
    /// `None`: it did not end.
    pub(crate) status: Option<i32>,
    /// How long, by the machine's clock.
    pub(crate) seconds: f64,
}

/// Built line by line while the machine runs.
pub(crate) struct Transcript {
    mark: String,
    ran: Vec<Ran>,
    is_running: bool,
    is_done: bool,
}

impl Transcript {
    /// `mark` stands before each word of the machine's own.
    pub(crate) fn new(mark: String) -> Self {
        Self { mark, ran: Vec::new(), is_running: false, is_done: false }
    }

    /// Takes a line without its end. Gives it back if it is a command's.
    pub(crate) fn line<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let line = line.trim_end_matches('\r');
        let Some(word) = line.strip_prefix(&self.mark) else {
            let ran = self.ran.last_mut().filter(|_| self.is_running)?;
            ran.output += line;
            ran.output.push('\n');
            return Some(line);
        };
        match word.trim().split_once(' ') {
            Some(("begin", _)) => {
                self.ran.push(Ran::default());
                self.is_running = true;
            }
            Some(("end", status)) => {
                if let Some(ran) = self.ran.last_mut() {
                    let (status, seconds) = status.split_once(' ').unwrap_or((status, "0"));
                    ran.status = status.parse().ok();
                    ran.seconds = seconds.parse().unwrap_or_default();
                    // The mark stands on a line of its own, whatever came before.
                    ran.output.pop();
                }
                self.is_running = false;
            }
            _ => self.is_done = true,
        }
        None
    }

    /// Whether the machine came to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    pub(crate) fn into_ran(self) -> Vec<Ran> {
        self.ran
    }
}

/// The first line of the console, after the commands began, that tells of a broken kernel.
pub(crate) fn kernel_complaint(console: &str) -> Option<&str> {
    const COMPLAINTS: [&str; 8] = [
        "BUG:",
        "Oops",
        "WARNING:",
        "Kernel panic",
        "general protection fault",
        "kernel BUG at",
        "UBSAN:",
        "unregister_netdevice: waiting for",
    ];
    let since = console.find(BEGIN).map_or(console, |at| &console[at..]);
    since.lines().find(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)))
}

/// Written to the kernel's log before the first command, by `commands.sh`.
const BEGIN: &str = "ironclad: commands begin";

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(text: &str) -> Transcript {
        let mut transcript = Transcript::new("@x ".into());
        text.lines().for_each(|line| {
            transcript.line(line);
        });
        transcript
    }

    #[test]
    fn outputs_between_marks() {
        let t = transcript(
            "noise\n\n@x begin 0\na\nb\n@x end 3 7\n\n@x begin 1\n@y end 0\r\n\n@x end 0\n@x done",
        );
        assert!(t.is_done());
        let ran = |output: &str, status, seconds| Ran { output: output.into(), status, seconds };
        assert_eq!(t.into_ran(), [ran("a\nb", Some(3), 7.0), ran("@y end 0\n", Some(0), 0.0)]);
    }

    #[test]
    fn a_cut_transcript_is_not_done() {
        let t = transcript("@x begin 0\ntest a ... ");
        assert!(!t.is_done());
        assert_eq!(t.into_ran()[0].status, None);
    }

    #[test]
    fn complaints_count_from_the_first_command_on() {
        let boot = "WARNING: old firmware\n";
        assert_eq!(kernel_complaint(&format!("{boot}[1] {BEGIN}\nfine\n")), None);
        let oops = format!("{boot}[1] {BEGIN}\n[2] BUG: unable to handle\n");
        assert_eq!(kernel_complaint(&oops), Some("[2] BUG: unable to handle"));
        assert_eq!(
            kernel_complaint("[0] Kernel panic - not syncing"),
            Some("[0] Kernel panic - not syncing")
        );
    }
}
