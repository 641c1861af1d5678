//! Normal operation of a host under the example policy raises no alarm, and a flood of alarms allows nothing.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::testbed::{EPERM, Host, PATIENCE, Running, lsm};
use ironclad_core::abi::SentinelVerdict;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_policy::document::Document;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_sentinel::{EventPump, EventReceiver, Overflow, Sentinel, SentinelRecord};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(normal_operation_raises_no_false_alarm).shared().in_machine().needs(&[lsm]),
        test!(a_flood_of_alarms_allows_nothing).in_machine().needs(&[lsm]),
    ]
}

const POLICY: &str = include_str!("../../../examples/policies/host.yaml");

/// A small host below a directory, for the example policy.
struct SmallHost {
    host: Host,
    busybox: PathBuf,
}

impl SmallHost {
    fn new() -> Self {
        let host = Host::new();
        for dir in
            ["usr/bin", "usr/sbin", "usr/lib", "opt", "etc/ssh", "etc/motd.d", "var/log", "home"]
        {
            std::fs::create_dir_all(host.path(dir)).unwrap();
        }
        for (file, text) in [
            ("usr/lib/tool", "version 1\n"),
            ("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
            ("etc/shadow", "root:*:1::::::\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/ssh/sshd_config", "PermitRootLogin no\n"),
            ("etc/motd.d/motd", "hello\n"),
            ("var/log/service.log", "one\ntwo\n"),
        ] {
            std::fs::write(host.path(file), text).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
        let busybox = busybox.into_iter().find(|path| path.is_file()).expect("busybox");
        // Copies: an exemption is for one file.
        for program in
            ["usr/bin/dpkg", "usr/sbin/logrotate", "usr/sbin/rsyslogd", "usr/sbin/usermod"]
        {
            std::fs::copy(&busybox, host.path(program)).unwrap();
        }
        Self { host, busybox }
    }

    /// The example, with its paths below the directory.
    fn start(&self) -> (Running, EventPump, EventReceiver) {
        let here = |root: &str| format!("{}{root}", self.host.dir().display());
        let roots = ["/usr", "/opt", "/etc", "/var/log"];
        let text = roots.iter().fold(POLICY.to_owned(), |text, root| {
            ["[", " "].iter().fold(text, |text, before| {
                text.replace(&format!("{before}{root}"), &format!("{before}{}", here(root)))
            })
        });
        let document = Document::parse("host.yaml", &text).unwrap();
        let policy = document.policy(self.host.dir()).unwrap().compile().unwrap();
        let sentinel = self.host.start(&policy);
        let (pump, events) = sentinel.events(4096, Overflow::DropNewest).unwrap();
        (sentinel, pump, events)
    }

    /// A script, run by busybox or by one of its copies.
    fn run(&self, program: &Path, script: &str) -> Output {
        let mut command = Command::new(program);
        // With the copy's name it would run that applet.
        command.arg0("busybox").args(["sh", "-ec", script]).current_dir(self.host.dir());
        command.output().unwrap()
    }

    fn does(&self, script: &str) {
        let done = self.run(&self.busybox.clone(), script);
        assert!(done.status.success(), "{script}: {done:?}");
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// What was refused since the last call.
fn refused(events: &EventReceiver) -> Vec<SentinelRecord> {
    std::iter::from_fn(|| events.try_recv())
        .map(|event| event.into_sentinel().unwrap())
        .filter(|event| event.verdict == SentinelVerdict::Denied)
        .collect()
}

/// Waits until earlier alarms have arrived: the alarm of this refused access arrives after them.
fn drain(
    small_host: &SmallHost,
    attacker: &mut TestProcess,
    events: &EventReceiver,
) -> Vec<SentinelRecord> {
    let marker = small_host.host.path("usr/lib/tool");
    assert_eq!(attacker.ask(&format!("chmod {}", marker.display())).unwrap(), EPERM);
    let mut before = Vec::new();
    loop {
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        let is_denied = event.verdict == SentinelVerdict::Denied;
        if is_denied && event.pid == attacker.pid() {
            return before;
        }
        before.extend(is_denied.then_some(event));
    }
}

/// A package in the format of `dpkg`: an archive of archives.
fn package(small_host: &SmallHost, version: &str) -> PathBuf {
    let dir = small_host.host.path(&format!("home/package-{version}"));
    let root = small_host.host.dir().display().to_string();
    let place = format!("{}/root{root}/usr/lib", dir.display());
    let [dir_text, tool] = [dir.display().to_string(), format!("{place}/tool")];
    small_host.does(&format!(
        "mkdir -p {place} {dir_text}/control; echo 'version {version}' > {tool}; echo new > {place}/new-{version}
         printf 'Package: tool\\nVersion: {version}\\nArchitecture: all\\nMaintainer: nobody\\nDescription: a tool\\n' > {dir_text}/control/control
         cd {dir_text}/control; tar -czf ../control.tar.gz ./control
         cd {dir_text}/root; tar -czf ../data.tar.gz .
         echo 2.0 > {dir_text}/debian-binary"
    ));
    let path = small_host.host.path(&format!("home/tool-{version}.deb"));
    let mut archive = b"!<arch>\n".to_vec();
    for member in ["debian-binary", "control.tar.gz", "data.tar.gz"] {
        let bytes = std::fs::read(dir.join(member)).unwrap();
        let size = bytes.len();
        writeln!(archive, "{member:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`", 0, 0, 0, 100_644)
            .unwrap();
        archive.extend(&bytes);
        archive.resize(archive.len().next_multiple_of(2), b'\n');
    }
    std::fs::write(&path, archive).unwrap();
    path
}

fn normal_operation_raises_no_false_alarm() {
    let small_host = SmallHost::new();
    let mut attacker = small_host.host.test_process();
    let packages = ["2", "3"].map(|version| package(&small_host, version));
    let tool = small_host.host.path("usr/lib/tool");
    // tar replaces existing files.
    let unpack = |package: &Path| {
        let package = package.display();
        format!("ar -p {package} data.tar.gz > home/data.tar.gz; tar -xzf home/data.tar.gz -C /")
    };
    // Without Sentinel every process unpacks packages.
    small_host.does(&unpack(&packages[0]));
    assert_eq!(read(&tool), "version 2\n");
    let (sentinel, pump, events) = small_host.start();

    // With Sentinel only the package manager may.
    let other = small_host.run(&small_host.busybox, &unpack(&packages[1]));
    assert!(!other.status.success(), "{other:?}");
    assert_eq!(read(&tool), "version 2\n");
    assert!(!drain(&small_host, &mut attacker, &events).is_empty());
    let dpkg = small_host.host.path("usr/bin/dpkg");
    let done = small_host.run(&dpkg, &unpack(&packages[1]));
    assert!(done.status.success(), "{done:?}");
    assert_eq!(read(&tool), "version 3\n");
    assert_eq!(read(&small_host.host.path("usr/lib/new-3")), "new\n");
    drop((pump, events, sentinel));

    // The steps of Debian's dpkg: a new file, a hard link to the old one, and a rename. An exemption is for the
    // executable that exists when the policy is applied.
    let dpkg = small_host.host.program("usr/bin/dpkg");
    let (sentinel, _pump, events) = small_host.start();
    let mut updater = small_host.host.test_process_by(&dpkg);
    let name = |suffix: &str| format!("{}{suffix}", tool.display());
    for order in [
        format!("create {}", name(".dpkg-new")),
        format!("append {}", name(".dpkg-new")),
        format!("chmod {}", name(".dpkg-new")),
        format!("link {} {}", name(""), name(".dpkg-tmp")),
        format!("rename {} {}", name(".dpkg-new"), name("")),
        format!("unlink {}", name(".dpkg-tmp")),
    ] {
        assert_eq!(updater.ask(&order).unwrap(), 0, "{order}");
    }
    assert_eq!(read(&tool), "mischief");

    // Log rotation: rename, create, compress, remove the oldest.
    let rotate = "cd var/log; mv service.log service.log.1; : > service.log; gzip service.log.1; \
                  mv service.log.1.gz service.log.2.gz; rm service.log.2.gz; chmod 640 service.log";
    let other = small_host.run(&small_host.busybox, rotate);
    assert!(!other.status.success(), "{other:?}");
    assert!(!drain(&small_host, &mut attacker, &events).is_empty());
    let done = small_host.run(&small_host.host.path("usr/sbin/logrotate"), rotate);
    assert!(done.status.success(), "{done:?}");
    // Services append to their logs.
    small_host.does("echo three >> var/log/service.log; echo one > var/log/other.log");

    // An editor saves by a copy and a rename; so does sed.
    small_host.does("cd etc/motd.d; cp motd .motd.swp; echo more >> .motd.swp; cp -p motd motd~; mv .motd.swp motd; rm motd~");
    small_host.does("sed -i s/hello/welcome/ etc/motd.d/motd");
    assert_eq!(read(&small_host.host.path("etc/motd.d/motd")), "welcome\nmore\n");

    // A container starts and ends: namespaces, a root of its own, what it mounts. The root of an
    // initramfs cannot be exchanged: there runtimes move another over it.
    small_host.does(
        "mkdir -p home/c/lower/bin home/c/lower/proc home/c/lower/old home/c/up home/c/root
         mount -t tmpfs container home/c/up; mkdir home/c/up/up home/c/up/work
         cp /proc/self/exe home/c/lower/bin/busybox
         unshare -m -p -f -u -i -n sh -ec '
             mount -t overlay -o lowerdir=home/c/lower,upperdir=home/c/up/up,workdir=home/c/up/work overlay home/c/root
             cd home/c/root; mount -t proc proc proc; mkdir -p old
             pivot_root . old || { rmdir old; mount -o move . /; }
             exec chroot . /bin/busybox sh -ec \"
                 if [ -d /old ]; then /bin/busybox umount -l /old; fi
                 echo hi > /file; /bin/busybox rm /file; /bin/busybox chmod 600 /bin/busybox\"'
         umount home/c/up",
    );
    let denied = drain(&small_host, &mut attacker, &events);
    assert!(denied.is_empty(), "{denied:#?}");
    let status = sentinel.status().unwrap();
    assert!(status.degraded.is_empty(), "{status:?}");
    let denied = refused(&events);
    assert!(denied.is_empty(), "{denied:#?}");
}

fn a_flood_of_alarms_allows_nothing() {
    const ATTEMPTS: u32 = 20_000;
    let host = Host::new();
    let (protected, noisy) = (host.path("protected"), host.path("noisy"));
    for dir in [&protected, &noisy] {
        std::fs::create_dir(dir).unwrap();
        std::fs::write(dir.join("file"), "1").unwrap();
    }
    let [protected, noisy] = [&protected, &noisy].map(|dir| dir.join("file").display().to_string());
    let mut attacker = host.test_process();
    let mut flooders = [host.test_process(), host.test_process()];
    let attack = format!("repeat 100 open-to-write {protected}");
    assert_eq!(attacker.ask(&attack).unwrap(), 100, "without us");
    let deny = FileRule::new(RULES[0], "protected", FileAction::Deny).file(&protected);
    let log =
        FileRule::new(RULES[1], "noisy", FileAction::Log).operations(FileOps::ALL).file(&noisy);
    let policy = Policy::builder().file_rule(deny).file_rule(log).compile().unwrap();
    let sentinel = Sentinel::builder("test").ring_bytes(4096).start(&policy).unwrap();

    // No process reads alarms meanwhile: the ring buffer has space for a dozen.
    let floods = [
        format!("repeat {ATTEMPTS} open-to-read {noisy}"),
        format!("repeat {ATTEMPTS} open-to-write {protected}"),
    ];
    let mut attacks = 0;
    std::thread::scope(|scope| {
        let running: Vec<_> = flooders
            .iter_mut()
            .zip(&floods)
            .map(|(flooder, flood)| scope.spawn(move || flooder.ask(flood).unwrap()))
            .collect();
        while running.iter().any(|flood| !flood.is_finished()) {
            assert_eq!(attacker.ask(&attack).unwrap(), 0, "after {attacks} hundred");
            assert_eq!(attacker.ask(&format!("kill {} 9", std::process::id())).unwrap(), EPERM);
            attacks += 1;
        }
        let succeeded: Vec<_> = running.into_iter().map(|flood| flood.join().unwrap()).collect();
        assert_eq!(succeeded, [u64::from(ATTEMPTS), 0]);
    });
    assert!(attacks > 0);

    // The number of lost alarms is exact.
    let lost = sentinel.status().unwrap().alarms_lost;
    assert!(lost > u64::from(ATTEMPTS), "{lost}");
    let (_pump, events) = sentinel.events(1 << 16, Overflow::DropNewest).unwrap();
    // Reading frees space in the ring buffer.
    for _ in 0..2 {
        events.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(attacker.ask(&format!("open-to-write {protected}")).unwrap(), EPERM);
    let next = loop {
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        if event.lost == lost {
            break event;
        }
    };
    assert_eq!((next.verdict, next.pid), (SentinelVerdict::Denied, attacker.pid()), "{next}");
}

const RULES: [ironclad_core::RuleId; 2] = [ironclad_core::RuleId(1), ironclad_core::RuleId(2)];
