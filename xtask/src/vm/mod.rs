//! Virtual machines: a kernel, an image made for it, commands, and what became of them.

mod cpio;
mod initramfs;
mod transcript;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::command::{command, find, tail, write};
use crate::failure::{Context, Result};
use crate::kernels::Kernel;
use initramfs::Image;
pub(crate) use transcript::Ran;
use transcript::{Transcript, kernel_complaint};

/// No bpf LSM unless asked for, on older kernels; nothing that could end in an endless reboot.
/// Grace periods of RCU are hastened: a start waits for many of them, a sixth of its time on 5.10.
/// A processor counts as stuck after twice 60 seconds instead of twice 10: on a busy host an emulated
/// one may get no time for that long.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic watchdog_thresh=60 \
     rcupdate.rcu_expedited=1 lsm=lockdown,capability";
/// One thread for all processors: with one for each, a processor may execute the breakpoint that
/// another has taken out of the kernel's text already, which ends as `Oops: int3`. Two machines at
/// once keep two processors as busy.
const ACCELERATOR: &str = "tcg,thread=single";
/// Everything that is emulated but fast strings: kernels copy byte by byte with those, which takes a
/// third of the time on 5.10.
const PROCESSOR: &str = "max,-fsrm,-erms";
/// The size of its NVMe disk, which is empty. The SCSI disk is the kernel's own.
const NVME_BYTES: u64 = 32 << 20;
const BOOT_SECONDS: u64 = 180;
const CONSOLE_LINES: usize = 30;

/// A program of the host that the machine gets, with its libraries.
pub(crate) struct Program {
    pub(crate) from: PathBuf,
    pub(crate) to: String,
}

/// How often a machine is booted that does not come up.
const BOOTS: u32 = 3;

/// What to run on a kernel.
#[derive(Default)]
pub(crate) struct Job {
    pub(crate) programs: Vec<Program>,
    /// Files of the host and their places in the machine.
    pub(crate) files: Vec<(PathBuf, String)>,
    pub(crate) commands: Vec<Vec<String>>,
    pub(crate) environment: Vec<(String, String)>,
    /// For each command.
    pub(crate) timeout_seconds: u64,
    /// Whether the machine has one processor, and a clock that counts its instructions, one for each
    /// nanosecond: what is measured there does not depend on what emulation costs. It says so to its
    /// programs by `IRONCLAD_CLOCK=instructions`.
    pub(crate) counts_instructions: bool,
    /// Whether BPF LSM is not among its security modules.
    pub(crate) is_without_lsm: bool,
}

/// How it went.
pub(crate) struct Report {
    /// One for each command that began.
    pub(crate) ran: Vec<Ran>,
    /// Why the machine as a whole is not to be trusted: it hung, or the kernel complained.
    pub(crate) problem: Option<String>,
}

/// Boots the kernel, runs the commands one after the other, shuts down. Each line of their output
/// goes to `echo` as it comes.
///
/// An emulated kernel may fail while it boots, which says nothing of us: it is booted again then, and
/// that is said.
pub(crate) fn run(kernel: &Kernel, job: &Job, mut echo: impl FnMut(&str)) -> Result<Report> {
    let mut boots = 1;
    loop {
        let report = boot(kernel, job, &mut echo)?;
        match &report.problem {
            Some(problem) if report.ran.is_empty() && boots < BOOTS => {
                eprintln!("{}: boot {boots} of at most {BOOTS}: {problem}", kernel.release);
                boots += 1;
            }
            _ => return Ok(report),
        }
    }
}

fn boot(kernel: &Kernel, job: &Job, mut echo: impl FnMut(&str)) -> Result<Report> {
    let qemu =
        find("qemu-system-x86_64").context("no qemu-system-x86_64: run cargo xtask setup")?;
    let dir = tempfile::tempdir().context("temporary directory")?;
    let (initramfs, console) = (dir.path().join("initramfs"), dir.path().join("console"));
    let mark = mark();
    write(&initramfs, image(kernel, job)?.finish(&script(job, &mark))?)?;
    let disk = dir.path().join("nvme");
    let file = std::fs::File::create(&disk).context(disk.display())?;
    file.set_len(NVME_BYTES).context(disk.display())?;

    let seconds = BOOT_SECONDS + job.timeout_seconds * job.commands.len() as u64;
    let clock: &[&str] = match job.counts_instructions {
        true => &["-smp", "1", "-icount", "shift=0,sleep=off"],
        false => &["-smp", "2"],
    };
    let lsm = if job.is_without_lsm { "" } else { ",bpf" };
    let mut machine = command("timeout", ["--kill-after=5".into(), seconds.to_string()])
        .arg(qemu)
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-m", "2G"])
        .args(clock)
        .args(["-accel", ACCELERATOR, "-cpu", PROCESSOR])
        .args(["-drive", &format!("if=none,id=nvme,format=raw,file={}", disk.display())])
        .args(["-device", "nvme,drive=nvme,serial=nvme"])
        .args(["-kernel".as_ref(), kernel.image().as_os_str()])
        .args(["-initrd".as_ref(), initramfs.as_os_str()])
        .args(["-append", &format!("{KERNEL_ARGUMENTS}{lsm}")])
        .args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("timeout")?;

    let mut transcript = Transcript::new(mark);
    let lines = BufReader::new(machine.stdout.take().context("no standard output")?);
    // The last empty line before a mark is the mark's.
    let mut is_line_held = false;
    for line in lines.split(b'\n') {
        let line = line.context("reading from the machine")?;
        let line = String::from_utf8_lossy(&line);
        match transcript.line(&line) {
            Some(line) => {
                if is_line_held {
                    echo("");
                }
                is_line_held = line.is_empty();
                if !is_line_held {
                    echo(line);
                }
            }
            None => is_line_held = false,
        }
    }
    let ended = machine.wait_with_output().context("waiting for the machine")?;
    let console = std::fs::read(&console).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let said = String::from_utf8_lossy(&ended.stderr);
    let last_words = || format!("\n{}\n{}", said.trim_end(), tail(&console, CONSOLE_LINES));
    let problem = if let Some(complaint) = kernel_complaint(&console) {
        Some(format!("the kernel complained: {complaint}{}", last_words()))
    } else if transcript.is_done() {
        None
    } else if ended.status.code() == Some(124) {
        Some(format!("cut after {seconds} s; the console's last lines:{}", last_words()))
    } else {
        let status = ended.status;
        Some(format!("the machine stopped early ({status}); its last lines:{}", last_words()))
    };
    Ok(Report { ran: transcript.into_ran(), problem })
}

/// PID 1 of a machine. The machine stops when it ends.
pub(crate) fn first_process() -> ExitCode {
    match ironclad_lab::init::main(Path::new(initramfs::SCRIPT)) {
        Ok(()) => eprintln!("the machine's script ended early"),
        Err(error) => eprintln!("PID 1: {error}"),
    }
    ExitCode::FAILURE
}

fn image(kernel: &Kernel, job: &Job) -> Result<Image> {
    let mut image = Image::new(kernel)?;
    for Program { from, to } in &job.programs {
        image.program(from, to)?;
    }
    for (from, to) in &job.files {
        image.file(from, to)?;
    }
    for (number, words) in job.commands.iter().enumerate() {
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        image.script(&format!("/command/{number}"), &format!("exec {}", words.join(" ")));
    }
    Ok(image)
}

fn script(job: &Job, mark: &str) -> String {
    // What would harm a host asks for it.
    let mut script = String::from("export IRONCLAD_MACHINE=1\n");
    if job.counts_instructions {
        script += "export IRONCLAD_CLOCK=instructions\n";
    }
    for (name, value) in &job.environment {
        script += &format!("export {name}={}\n", quoted(value));
    }
    script += &format!("mark='{mark}'\nlimit={}\n", job.timeout_seconds);
    script += include_str!("commands.sh");
    for number in 0..job.commands.len() {
        script += &format!("run {number}\n");
    }
    script + "say done\nreboot -f\n"
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn mark() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let digest = Sha256::digest(format!("{} {}", now.as_nanos(), std::process::id()));
    let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("@@{digits} ")
}

/// `cargo xtask vm`: one more command on one kernel, its output on ours.
pub(crate) fn command_line(
    kernel: &Kernel,
    words: &[String],
    files: &[PathBuf],
    mut job: Job,
) -> Result<Option<i32>> {
    let mut words = words.to_vec();
    // A program of this machine goes along; any other word is the guest's.
    let program = Path::new(&words[0]);
    if program.is_file() {
        let name = program.file_name().context("a program without a name")?;
        let to = format!("/bin/{}", name.to_string_lossy());
        job.programs.push(Program { from: program.to_owned(), to: to.clone() });
        words[0] = to;
    }
    for file in files {
        let name = file.file_name().context("a file without a name")?.to_string_lossy();
        job.files.push((file.clone(), format!("/root/{name}")));
    }
    job.commands.push(words);
    let report = run(kernel, &job, |line| println!("{line}"))?;
    match report.problem {
        Some(problem) => Err(format!("{}: {problem}", kernel.release).into()),
        None => Ok(report.ran.last().and_then(|ran| ran.status)),
    }
}
