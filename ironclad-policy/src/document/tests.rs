use std::collections::BTreeMap;
use std::path::PathBuf;

use ironclad_core::{Action, RuleId, SocketVerdict, Verdict};

use super::*;
use crate::socket::Subject;
use crate::{AddressList, CompiledPolicy};

/// Every key that there is.
pub(super) const WHOLE: &str = r#"
default: drop
malformed: allow
non-ip: drop
neighbour-discovery: false
dry-run: true
backend: lpm-trie
events-per-second: 3
gateways: [10.0.0.1, "fd00::1"]
countries: { folders: [geo4, geo6], bad-lines: lenient }
list-limits: { max-bytes: 16 MiB, max-entries: 5000000, max-skipped: 7 }
policy-limits: { max-bytes: 1 GiB, max-prefixes: 9000000, max-tuples: 2000000, socket-rule-slots: 8000, socket-rows: 2000, socket-cells: 70000 }
addresses:
  office: { cidrs: [10.20.0.0/16, 192.0.2.7] }
  mirrors: { lists: mirrors.txt, bad-lines: lenient }
  neighbours: { countries: [de, NO] }
  bad: { feeds: [ipsum, drop] }
sets:
  - id: 1
    name: far
    action: drop
    lists: [far.txt]
    cidrs: [198.51.100.0/24]
    addresses: [bad, neighbours]
    countries: fr
    feeds: drop
    bad-lines: lenient
    events-per-second: 4
tuples:
  - { id: 2, name: dns, action: allow, src: 10.0.0.0/8, dst: 10.0.0.53, dport: 53, protocol: udp, events-per-second: 0 }
subjects:
  apt: { exe: /usr/lib/apt/methods/https, uid: [42, _apt], gid: nogroup }
  sessions: { descendant-of: /usr/sbin/sshd, parent: [/bin/bash, /bin/sh] }
  web: { cgroup: /system.slice/nginx.service, spoofable-comm: [nginx, worker] }
  boxed: { container: [4fa6e0f0c678, "123456789012"] }
limits:
  outbound: { per-second: 100, burst: 200, per: host }
  slow: { per-second: 1, per: subject }
socket-defaults: { out: deny, in: allow, create: deny }
rules:
  - id: 10
    name: apt to mirrors
    subject: apt
    to: [mirrors, 203.0.113.0/24]
    ports: [80, 443, 8000-8100]
    protocol: [tcp, 17]
    action: allow
    limit: outbound
    direction: out
    report: true
    dry-run: true
    events-per-second: 5
  - { id: 20, name: me, subject: { uid: root, exe: [/bin/a, { path: /bin/b, sha256: 0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef }] }, to: office, ports: 22, protocol: tcp, action: allow, limit: { per-second: 5, burst: 9, per: rule } }
  - { id: 30, name: ping, action: log, direction: create, protocol: icmp }
  - { id: 40, name: other processes, action: deny, direction: out }
files:
  - id: 1
    name: configuration
    action: deny
    files: [/etc/shadow, /etc/passwd]
    trees: /etc/my-agent
    globs: "/etc/cron.d/*"
    operations: [change, read]
    except: [/usr/bin/dpkg, /usr/sbin/usermod]
    dry-run: true
  - { id: 2, name: seen, action: log, files: /etc/motd }
"#;

/// Whether files may declare feeds.
const HAS_FEEDS: bool = cfg!(all(unix, feature = "feed"));

/// Every policy in the documentation, and where it is.
pub(super) fn examples() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md")];
    let docs = std::fs::read_dir(root.join("docs")).into_iter().flatten();
    files.extend(docs.flatten().map(|entry| entry.path()));
    let mut examples = vec![("the whole".to_owned(), WHOLE.to_owned())];
    #[cfg(all(unix, feature = "feed"))]
    examples.push(("feeds".to_owned(), FEEDS.to_owned()));
    for file in files {
        let is_text = file.extension().is_some_and(|extension| extension == "md");
        let Some(text) = std::fs::read_to_string(&file).ok().filter(|_| is_text) else { continue };
        let mut block: Option<(usize, String)> = None;
        for (number, line) in (1..).zip(text.lines()) {
            block = match (block, line.trim_end()) {
                (None, "```yaml") => Some((number, String::new())),
                (None, _) => None,
                (Some((first, text)), "```")
                    if !HAS_FEEDS && text.lines().any(|line| line.starts_with("feeds:")) =>
                {
                    println!("SKIP examples: {}:{first} needs the feature `feed`", file.display());
                    None
                }
                (Some((first, text)), "```") => {
                    examples.push((format!("{}:{first}", file.display()), text));
                    None
                }
                (Some((first, text)), line) => Some((first, format!("{text}{line}\n"))),
            };
        }
        assert!(block.is_none(), "{}: a block has no end", file.display());
    }
    examples
}

#[test]
fn examples_are_read() {
    let examples = examples();
    for (place, text) in &examples {
        if let Err(error) = Document::parse(place, text) {
            panic!("{error}");
        }
    }
    let ours = if HAS_FEEDS { 2 } else { 1 };
    if examples.len() == ours {
        println!("SKIP examples_are_read: no docs beside this crate");
    } else {
        let least = if HAS_FEEDS { 9 } else { 4 };
        assert!(examples.len() >= least, "{} examples", examples.len());
    }
}

fn error(text: &str) -> String {
    Document::parse("p.yaml", text).unwrap_err().to_string()
}

/// A text without the mark in it, and how an error at the mark begins.
fn marked(text: &str) -> (String, String) {
    let (before, after) = text.split_once('«').unwrap();
    let line = before.rsplit('\n').next().unwrap();
    let (line, column) = (before.matches('\n').count() + 1, line.chars().count() + 1);
    (format!("{before}{after}"), format!("p.yaml:{line}:{column}: "))
}

fn fails_at_mark(text: &str, expected: &str) {
    let (text, place) = marked(text);
    assert_eq!(error(&text), place + expected);
}

#[test]
fn errors_name_the_place_and_the_cause() {
    for (text, expected) in [
        (
            "default: allow\nsets:\n  - { id: 1, name: a, action: «block }\n",
            "sets[0].action: unknown value `block`: expected `drop`, `allow` or `log`",
        ),
        (
            "files:\n  - { id: 1, name: a, action: deny, trees: /a, operations: [write, «chmod] }\n",
            "files[0].operations[1]: unknown value `chmod`: expected `read`, `write`, `create`, `delete`, `rename`, `link`, `metadata`, `execute`, `change` or `all`",
        ),
        ("«defualt: drop\n", "unknown key `defualt`: did you mean `default`?"),
        (
            "sets:\n  - { id: 1, name: a, action: drop, cidrs: [«10.0.0.0/33] }\n",
            "sets[0].cidrs[0]: `/33` is not a prefix length from /0 to /32",
        ),
        (
            "tuples:\n  - { id: 1, name: a, action: drop, protocol: «tpc }\n",
            "tuples[0].protocol: unknown value `tpc`: did you mean `tcp`?",
        ),
        ("«- 1\n", "found a list, expected a mapping of keys"),
        ("default: allow\n«default: drop\n", "duplicate key `default`: line 1 has it, too"),
        (
            "sets:\n  - { id: 1, name: a, action: drop, cidrs: [«10.1.2.3/8] }\n",
            "sets[0].cidrs[0]: `10.1.2.3/8` has host bits: write 10.0.0.0/8",
        ),
        (
            "tuples:\n  - { id: 1, name: a, action: drop, src: «\"2001:db8::1/32\" }\n",
            "tuples[0].src: `2001:db8::1/32` has host bits: write 2001:db8::/32",
        ),
        ("sets:\n  - «{ id: 1, name: a }\n", "sets[0]: the key `action` is missing"),
        ("dry-run: «maybe\n", "dry-run: found `maybe`, expected true or false"),
        ("dry-run: «no\n", "dry-run: found `no`, expected true or false"),
        ("dry-run«:\n", "dry-run: found nothing, expected true or false"),
        (
            "tuples:\n  - { id: 1, name: a, action: drop, dport: «70000 }\n",
            "tuples[0].dport: found `70000`, expected a number from 0 to 65535",
        ),
        (
            "events-per-second: «010\n",
            "events-per-second: found `010`, expected a number from 0 to 4294967295",
        ),
        ("default: allow\n«---\ndefault: drop\n", "a second document begins here: a policy is one"),
        ("default: «!!str allow\n", "the tag `tag:yaml.org,2002:str` is not of the format"),
        ("x: &x { y: «*x }\n", "an alias within what it stands for"),
        ("[a«]: b\n", "a key is a word, neither a list nor a mapping"),
        (
            "policy-limits: { socket-rows: «0 }\n",
            "policy-limits.socket-rows: found `0`, expected a number from 1 to 4294967295",
        ),
        ("gateways: «10.0.0.x\n", "gateways: `10.0.0.x` is not an IPv4 or IPv6 address"),
        (
            "gateways: [10.0.0.1, «10.0.0.0/8]\n",
            "gateways[1]: `10.0.0.0/8` is a prefix: a gateway is one address",
        ),
    ] {
        fails_at_mark(text, expected);
    }
    for nothing in ["", "\n\n", "# a policy\n  # of comments\n", "{}\n", "---\n", "~\n"] {
        assert!(error(nothing).contains("says nothing"), "{nothing}");
    }
    // What stands in a file does not reach a terminal.
    let text = error("\"\\e[31m\\n\": 1\n");
    assert_eq!(
        text,
        "p.yaml:1:1: unknown key `\\u{1b}[31m\\n`: expected ".to_owned() + &text[49..]
    );
    assert!(!text.chars().any(char::is_control), "{text}");
}

#[test]
fn names_are_held_against_each_other() {
    for (text, expected) in [
        (
            "subjects: { apt: { uid: 1 } }\nrules:\n  - { id: 1, name: a, subject: «atp, action: deny }\n",
            "rules[0].subject: no subject is called `atp`: did you mean `apt`?",
        ),
        (
            "addresses: { office: { cidrs: 10.0.0.0/8 } }\nrules:\n  - id: 1\n    name: a\n    to:\n      - 10.0.0.1\n      - «ofice\n    action: deny\n",
            "rules[0].to[1]: no set of addresses is called `ofice`: did you mean `office`?",
        ),
        (
            "rules: [{ id: 1, name: a, to: «office, action: deny }]\n",
            "rules[0].to: no set of addresses is called `office`",
        ),
        (
            "rules: [{ id: 1, name: a, to: «deb.example, action: deny }]\n",
            "rules[0].to: no set of addresses is called `deb.example`, and names of hosts are not looked up: write their addresses",
        ),
        (
            "limits: { slow: { per-second: 1 } }\nrules: [{ id: 1, name: a, limit: «solw, action: allow }]\n",
            "rules[0].limit: no limit is called `solw`: did you mean `slow`?",
        ),
        (
            "sets: [{ id: 1, name: a, action: drop, addresses: «bad }]\n",
            "sets[0].addresses: no set of addresses is called `bad`",
        ),
        (
            "rules:\n  - { id: 7, name: a, action: deny }\n  - { id: «7, name: b, action: deny }\n",
            "rules[1].id: line 2 has a rule 7, too: give one of them another id",
        ),
        (
            "addresses: { a: { countries: «de } }\n",
            "addresses.a.countries: the key `countries` at the outermost level has to say where countries come from",
        ),
        (
            "countries: «{ folders: a, database: b }\n",
            "countries: say `folders` or `database`: they would contradict each other",
        ),
        ("countries: «{}\n", "countries: say `folders` or `database`"),
        (
            "addresses: { a: «{ } }\n",
            "addresses.a: no addresses: say `cidrs`, `lists`, `countries` or `feeds`",
        ),
        (
            "addresses:\n  «10.0.0.1: { cidrs: 10.0.0.1 }\n",
            "addresses: `10.0.0.1` would be read as an address: give it another name",
        ),
        (
            "subjects:\n  a: «{}\n",
            "subjects.a: it is any process: say which, or leave `subject` out of the rules",
        ),
        (
            "rules: [{ id: 1, name: a, subject: «{}, action: deny }]\n",
            "rules[0].subject: it is any process: say which, or leave `subject` out",
        ),
        (
            "rules: [{ id: 1, name: a, to: «[], action: deny }]\n",
            "rules[0].to: the list is empty: leave the key out, or name something",
        ),
        (
            "rules: [{ id: 1, name: a, ports: «90-80, action: deny }]\n",
            "rules[0].ports: the range of ports `90-80` ends before it begins: write 80-90",
        ),
        (
            "rules: [{ id: 1, name: a, ports: [«http], action: deny }]\n",
            "rules[0].ports[0]: `http` is no port: expected a port from 0 to 65535 or a range like 8000-8100",
        ),
        (
            "rules: [{ id: 1, name: a, subject: { «exec: /bin/sh }, action: deny }]\n",
            "rules[0].subject: unknown key `exec`: did you mean `exe`?",
        ),
        (
            "subjects: { a: { exe: { path: /x, sha256: «abc } } }\n",
            "subjects.a.exe.sha256: expected a SHA-256 checksum of 64 hexadecimal digits: found 3 digits",
        ),
        (
            "subjects: { a: { exe: [/y, { path: /x, sha256: «0x12 }] } }\n",
            "subjects.a.exe[1].sha256: expected a SHA-256 checksum of 64 hexadecimal digits: found `x`",
        ),
        (
            "subjects: { a: { exe: «{ path: /x } } }\n",
            "subjects.a.exe: the key `sha256` is missing",
        ),
        (
            "subjects: { a: { exe: { path: /x, «sha265: a } } }\n",
            "subjects.a.exe: unknown key `sha265`: did you mean `sha256`?",
        ),
        (
            "subjects: { a: { exe: [«[/x]] } }\n",
            "subjects.a.exe[0]: found a list, expected a path, or `path` and `sha256` in braces",
        ),
        (
            "subjects: { a: { parent: «{ path: /x, sha256: abc } } }\n",
            "subjects.a.parent: found a mapping of keys, expected a path: only `exe` takes a `sha256`",
        ),
        (
            "subjects: { a: { descendant-of: [/y, «{ path: /x, sha256: abc }] } }\n",
            "subjects.a.descendant-of[1]: found a mapping of keys, expected a path: only `exe` takes a `sha256`",
        ),
        (
            "rules: [{ id: 1, name: a, subject: «[x], action: deny }]\n",
            "rules[0].subject: found a list, expected the name of a subject, or a subject in braces",
        ),
        (
            "rules: [{ id: 1, name: a, limit: { per-second: 5, per: «host }, action: allow }]\n",
            "rules[0].limit.per: a limit of one rule is shared with no other: give it a name under `limits`",
        ),
        (
            "limits: { a: { per-second: «0 } }\n",
            "limits.a.per-second: `0` is not from 1 to 1,000,000",
        ),
        (
            "addresses: { a: { countries: «deu } }\n",
            "addresses.a.countries: `deu` is no country: write its ISO code of two letters, such as `de`",
        ),
        (
            "rules: [{ «rule: 1, name: a, action: deny }]\n",
            "rules[0]: unknown key `rule`: expected `id`, `name`, `action`, `direction`, `subject`, `to`, `ports`, `protocol`, `limit`, `report`, `dry-run` or `events-per-second`",
        ),
    ] {
        fails_at_mark(text, expected);
    }
}

#[test]
fn rules_that_cannot_be_compiled_have_a_place() {
    for (text, expected) in [
        (
            "rules:\n  - { id: 1, name: a, action: deny }\n  - «{ id: 2, name: b, action: deny, protocol: icmp }\n",
            "rules[1]: rule 2 (`b`): icmp has no hook but socket(2): direction `create`",
        ),
        (
            "rules:\n  - «{ id: 1, name: a, action: deny, subject: { exe: bin/sh } }\n",
            "rules[0]: rule 1 (`a`): `bin/sh` is relative: write the whole path",
        ),
        (
            "rules:\n  - «{ id: 4294967295, name: a, action: deny }\n",
            "rules[0]: rule 4294967295 (`a`): its id is that of what executes a file of another SHA-256 than the one pinned: give it another",
        ),
        (
            "tuples:\n  - «{ id: 1, name: a, action: drop, dport: 53 }\n",
            "tuples[0]: rule 1 (`a`): a destination port needs a protocol with ports (tcp, udp, sctp, dccp or udplite)",
        ),
        (
            "sets:\n  - { id: 1, name: a, action: drop }\n  - «{ id: 1, name: b, action: drop }\n",
            "sets[1]: rule 1 is called `a` and `b`: give one of them another id",
        ),
        (
            "sets:\n  - { id: 1, name: a, action: drop, cidrs: 192.0.2.1 }\n  - «{ id: 2, name: b, action: drop }\n",
            "sets[1]: rule 2 (`b`): the set is empty: add an address or a list, or remove it",
        ),
        (
            "rules:\n  - { id: 1, name: a, action: deny }\n  - «{ id: 0, name: b, action: deny }\n",
            "rules[1]: rule `b` has the id 0, which stands for no rule: use an id from 1 on",
        ),
        (
            "files:\n  - «{ id: 3, name: '', action: deny, files: /a }\n",
            "files[0]: rule 3: `` is no name: use 1 to 128 characters, none of them a control character",
        ),
        (
            "files:\n  - «{ id: 3, name: a, action: deny, files: etc/a }\n",
            "files[0]: rule 3 (`a`): `etc/a` is no absolute path: begin it with `/`",
        ),
        (
            "files:\n  - { id: 3, name: a, action: deny, files: /a }\n  - «{ id: 4, name: b, action: deny }\n",
            "files[1]: rule 4 (`b`): it covers nothing: name a file, a directory or a pattern",
        ),
        (
            "files:\n  - { id: 3, name: a, action: deny, files: /a }\n  - «{ id: 3, name: b, action: log, files: /b }\n",
            "files[1]: rule 3 is called `a` and `b`: give one of them another id",
        ),
    ] {
        let (text, place) = marked(text);
        let document = Document::parse("p.yaml", &text).unwrap();
        let error = document.compile(&mut Sources::new(".")).unwrap_err();
        assert_eq!(error.to_string(), place + expected);
    }
}

#[test]
fn what_would_take_for_ever_is_refused() {
    let deep = error(&format!("default: allow\nsets: {}\n", "[".repeat(200_000)));
    assert!(
        deep.starts_with("p.yaml:2:") && deep.ends_with("nested deeper than any policy"),
        "{deep}"
    );
    for deep in [
        format!("x: {}", "{a: ".repeat(100_000)),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        // By aliases: no level is deep as it is written.
        (1..100).fold("a0: &a0 []\n".to_owned(), |text, n| {
            format!("{text}a{n}: &a{n} [*a{}]\n", n - 1)
        }),
    ] {
        assert!(error(&deep).contains("nested deeper"), "{}", error(&deep));
    }
    // Brackets in words and comments are no nesting.
    let brackets =
        format!("# {0}\nsets: [{{ id: 1, name: \"{0}\", action: drop }}]\n", "[".repeat(99));
    Document::parse("p.yaml", &brackets).unwrap();

    let many = "10.0.0.1, ".repeat(60_000);
    let many = format!(
        "sets:\n  - &s {{ id: 1, name: a, action: drop, cidrs: [{many}] }}\n{}",
        "  - *s\n".repeat(3000)
    );
    assert!(error(&many).contains("more than 250000 items"), "{}", error(&many));
    let many = format!("gateways: [{}]\n", "a,".repeat(600_000));
    assert!(error(&many).contains("more than 250000 items"), "{}", error(&many));
    let text = format!(
        "subjects:\n  a: {{ exe: [&e /{}, {}] }}\n",
        "a".repeat(1 << 20),
        "*e, ".repeat(1000)
    );
    assert!(error(&text).contains("bytes of text"), "{}", error(&text));
    let long = format!("sets: [{{ id: 1, name: {}, action: drop }}]\n", "a".repeat(1000));
    assert!(error(&long).contains("more than 512 bytes"));
    assert!(error(&" ".repeat(MAX_BYTES + 1)).contains("more than"));
    let error = Document::read("/dev/zero".as_ref()).unwrap_err().to_string();
    assert!(error.starts_with("/dev/zero: it has more than"), "{error}");
}

#[test]
fn lists_are_found_beside_the_document() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("geo")).unwrap();
    std::fs::write(folder.path().join("geo/xx.cidr"), "192.0.2.0/24\n").unwrap();
    std::fs::write(folder.path().join("bad.txt"), "198.51.100.7\nnonsense\n").unwrap();
    let text = |bad_lines| {
        format!(
            "sets:\n  - {{ id: 1, name: geo, action: drop, lists: [geo] }}\n  - {{ id: 2, name: bad, action: drop, lists: [bad.txt], bad-lines: {bad_lines} }}\n"
        )
    };
    let lenient = Document::parse("p.yaml", &text("lenient")).unwrap();
    let lenient = lenient.policy(folder.path()).unwrap();
    assert_eq!(lenient.reports().map(|report| report.skipped).sum::<u64>(), 1);
    let policy = |text: String| Document::parse("p.yaml", &text).unwrap().policy(folder.path());
    let compiled = policy(text("lenient")).unwrap().compile().unwrap();
    let why = compiled.explain("192.0.2.5".parse().unwrap()).to_string();
    assert!(why.contains("rule 1 (`geo`)") && why.ends_with("geo/xx.cidr:1"), "{why}");
    let refused = policy(text("strict")).unwrap_err().to_string();
    assert!(refused.starts_with("p.yaml:3:47: sets[1].lists[0]: "), "{refused}");
    assert!(refused.contains("bad.txt:2:1"), "{refused}");
}

/// Two feeds, and the requests to them.
struct Two(Vec<String>);

impl Feeds for Two {
    fn addresses(&mut self, name: &str) -> Result<AddressList, NoFeed> {
        self.0.push(name.to_owned());
        match name {
            "ipsum" => Ok(AddressList::from_cidrs(name, ["203.0.113.0/25".parse().unwrap()])),
            "drop" => Ok(AddressList::from_cidrs(name, ["2001:db8:bad::/48".parse().unwrap()])),
            "late" => Err(NoFeed::Unavailable("no good version yet".to_owned())),
            _ => Err(NoFeed::Unknown),
        }
    }

    fn names(&self) -> Vec<String> {
        ["ipsum", "drop", "late"].map(String::from).into()
    }
}

struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("geo4/de.cidr", "192.0.2.0/24\n"),
            ("geo4/no.cidr", "198.51.100.0/25\nnonsense\n"),
            ("geo4/fr.cidr", "198.51.100.128/25\n"),
            ("geo4/gb.cidr", "192.0.0.0/24\n"),
            ("geo4/readme.txt", "nonsense"),
            ("geo6/de.cidr", "2001:db8:de::/48\n"),
            ("mirrors.txt", "198.18.0.0/15\nnonsense\n"),
            ("far.txt", "233.252.0.0/24\n"),
            ("passwd", "root:x:0:0::/root:/bin/sh\n_apt:x:42:65534::/nonexistent:\n+\n"),
            ("group", "root:x:0:\nnogroup:x:65534:\n"),
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn policy(&self, text: &str) -> Result<crate::Policy, DocumentError> {
        let document = Document::parse("p.yaml", text)?;
        let accounts = EtcAccounts::new(self.path("passwd"), self.path("group"));
        let mut feeds = Two(Vec::new());
        let mut sources = Sources::new(self.0.path()).feeds(&mut feeds).accounts(&accounts);
        document.policy_from(&mut sources)
    }

    fn error(&self, text: &str) -> String {
        self.policy(text).unwrap_err().to_string()
    }
}

#[test]
fn the_whole_becomes_a_policy() {
    let lab = Lab::new();
    let policy = lab.policy(WHOLE).unwrap();
    assert_eq!(
        policy.sockets.defaults,
        [SocketVerdict::Deny, SocketVerdict::Allow, SocketVerdict::Deny]
    );
    let groups: BTreeMap<&str, Vec<String>> = policy
        .sockets
        .groups
        .iter()
        .map(|group| {
            let entries = group.lists.iter().flat_map(|list| list.entries());
            (group.name.as_str(), entries.map(|entry| entry.cidr.to_string()).collect())
        })
        .collect();
    assert_eq!(
        groups,
        BTreeMap::from([
            ("mirrors", vec!["198.18.0.0/15".to_owned()]),
            ("office", vec!["10.20.0.0/16".to_owned(), "192.0.2.7/32".to_owned()]),
        ])
    );
    let [apt, me, ping, no_process] = &policy.sockets.rules[..] else { panic!() };
    assert_eq!((apt.rule, apt.name.as_str()), (RuleId(10), "apt to mirrors"));
    assert_eq!(apt.subject.uids, [42, 42]);
    assert_eq!(apt.subject.gids, [65534]);
    let https = Subject::default().exe("/usr/lib/apt/methods/https");
    assert_eq!(apt.subject.exes, https.exes);
    let sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".parse().unwrap();
    assert_eq!(me.subject.exes, Subject::default().exe("/bin/a").exe_sha256("/bin/b", sum).exes);
    assert_eq!((apt.to.as_slice(), apt.cidrs.len()), (["mirrors".to_owned()].as_slice(), 1));
    assert_eq!(apt.ports, [80..=80, 443..=443, 8000..=8100]);
    assert_eq!(
        apt.protocols,
        [crate::Protocol::TCP, crate::Protocol::UDP].map(crate::SocketProtocol::from)
    );
    assert!(apt.report && apt.dry_run && apt.events_per_second == 5);
    let limit = apt.limit.as_ref().unwrap();
    assert_eq!((limit.rate(), limit.at_once(), limit.name.as_str()), (100, 200, "outbound"));
    assert_eq!(limit.scope, crate::socket::LimitScope::Host);
    assert_eq!((me.subject.name.as_str(), me.subject.uids.as_slice()), ("rule 20", [0].as_slice()));
    assert_eq!(me.limit.as_ref().unwrap().at_once(), 9);
    assert_eq!(ping.direction, crate::socket::Direction::Create);
    assert_eq!(no_process.subject, crate::socket::Subject::default());

    let set = &policy.sets[0];
    assert_eq!((set.rule, set.action), (RuleId(1), Action::Drop));
    let cidrs = set.lists.iter().flat_map(|list| list.entries());
    let cidrs: Vec<_> = cidrs.map(|entry| entry.cidr.to_string()).collect();
    assert_eq!(
        cidrs,
        [
            "198.51.100.0/24",
            "233.252.0.0/24",
            "198.51.100.128/25",
            "2001:db8:bad::/48",
            "203.0.113.0/25",
            "2001:db8:bad::/48",
            "192.0.2.0/24",
            "2001:db8:de::/48",
            "198.51.100.0/25",
        ]
    );
    // One line of Norway's, one of the mirrors'.
    assert_eq!(policy.reports().map(|report| report.skipped).sum::<u64>(), 2);
    let compiled = policy.compile().unwrap();
    // One has pinned an executable: three more on mismatches.
    assert_eq!(compiled.sockets().unwrap().rules().len(), 4 + 3);
}

#[test]
fn each_feed_is_read_once() {
    let document = Document::parse("p.yaml", WHOLE).unwrap();
    let lab = Lab::new();
    let accounts = EtcAccounts::new(lab.path("passwd"), lab.path("group"));
    let mut feeds = Two(Vec::new());
    document
        .policy_from(&mut Sources::new(lab.0.path()).feeds(&mut feeds).accounts(&accounts))
        .unwrap();
    assert_eq!(feeds.0, ["ipsum", "drop"]);
}

#[test]
fn what_is_elsewhere_and_is_not_there_has_a_place() {
    let lab = Lab::new();
    for (text, expected) in [
        (
            "addresses:\n  a: { feeds: [drop, «ipsun] }\n",
            "addresses.a.feeds[1]: no feed is called `ipsun`: did you mean `ipsum`?",
        ),
        (
            "addresses:\n  a: { feeds: «late }\n",
            "addresses.a.feeds: feed `late`: no good version yet",
        ),
        (
            "countries: { folders: [geo4, geo6] }\naddresses:\n  a: { countries: [de, «ed] }\n",
            "addresses.a.countries[1]: no country is called `ed`: did you mean `de`?",
        ),
        (
            "countries: { folders: [geo4, geo6] }\naddresses:\n  a: { countries: «UK }\n",
            "addresses.a.countries: no country is called `uk`: did you mean `gb`?",
        ),
        (
            "subjects:\n  a: { uid: «_atp }\n",
            "subjects.a.uid: no user is called `_atp`: did you mean `_apt`?",
        ),
        (
            "rules:\n  - { id: 1, name: a, action: deny, subject: { gid: [0, «rot] } }\n",
            "rules[0].subject.gid[1]: no group is called `rot`: did you mean `root`?",
        ),
        (
            "addresses:\n  a: { lists: [far.txt, «none.txt] }\n",
            "addresses.a.lists[1]: cannot read ",
        ),
        (
            "countries: { folders: «geo9 }\naddresses: { a: { countries: de } }\n",
            "countries.folders: cannot read ",
        ),
        (
            "countries: { folders: «geo4 }\naddresses: { a: { countries: no } }\n",
            "countries.folders: ",
        ),
        (
            "countries: { database: «none.mmdb }\naddresses: { a: { countries: de } }\n",
            "countries.database: ",
        ),
    ] {
        let (text, place) = marked(text);
        let error = lab.error(&text);
        assert!(error.starts_with(&(place + expected)), "{error}\n{expected}");
    }
    let error = lab.error("addresses: { a: { lists: \"\\e[31m\" } }\n");
    assert!(!error.contains(char::is_control), "{error:?}");
    let text = "addresses:\n  a: { feeds: drop }\n";
    let error = Document::parse("p.yaml", text).unwrap().policy("/".as_ref()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "p.yaml:2:15: addresses.a.feeds: feed `drop`: the program that reads this file has no feeds"
    );
    assert!(matches!(error.problem(), Problem::Feed { .. }));
    assert_eq!(error.place(), Some(Place { line: 2, column: 15 }));
    assert_eq!((error.file(), error.path().to_string().as_str()), ("p.yaml", "addresses.a.feeds"));
}

#[test]
fn words_that_other_readers_take_for_something_else() {
    let text = "
subjects:
  a: { uid: no, cgroup: /on }
rules:
  - { id: 0x10, name: 404, subject: a, action: deny, ports: \"22\", to: [\"::1\", 10.0.0.1] }
";
    let document = Document::parse("p.yaml", text).unwrap();
    assert_eq!(document.subjects["a"].uid, [DocumentAccount::Name("no".to_owned())]);
    let rule = &document.rules[0];
    assert_eq!((rule.id, rule.name.as_str()), (RuleId(16), "404"));
    assert_eq!(rule.ports, [DocumentPorts(22..=22)]);
    assert_eq!(rule.to.len(), 2);
    for text in
        ["\u{feff}default: drop\n", "default: drop\r\n", "%YAML 1.2\n---\ndefault: drop\n..."]
    {
        assert_eq!(Document::parse("p.yaml", text).unwrap().default, Verdict::Drop, "{text}");
    }
}

#[test]
fn packet_sockets_have_a_rule_or_go_unseen() {
    let rules = "
socket-defaults: { create: deny }
rules:
  - { id: 1, name: tcpdump, direction: create, protocol: packet, action: allow }
";
    let compile = |text: &str| {
        let document = Document::parse("p.yaml", text).unwrap();
        document.compile(&mut super::Sources::new("/"))
    };
    let decided_by = |text: &str| {
        compile(text).unwrap().sockets().unwrap().packet_sockets().map(|it| it.decided_by.clone())
    };
    assert_eq!(decided_by(rules), Some("rule 1 (`tcpdump`, p.yaml:4:5)".to_owned()));
    let unseen = "danger-packet-sockets-unseen: true\nsocket-defaults: { create: deny }\n";
    assert_eq!(decided_by(unseen), None);
    let both = compile(&format!("danger-packet-sockets-unseen: true{rules}")).unwrap_err();
    assert_eq!(both.path().to_string(), "rules[0]");
    assert!(both.to_string().contains("which this policy leaves unseen"), "{both}");
}

#[test]
fn shadowed_rules_are_reported_with_the_earlier_rule() {
    let text = "
subjects: { sshd: { exe: /usr/sbin/sshd } }
socket-defaults: { out: deny }
rules:
  - { id: 1, name: pinned, subject: { exe: { path: /a, sha256: SUM } }, action: allow }
  - { id: 2, name: log, action: log }
  - { id: 3, name: in, direction: in, action: deny, dry-run: true }
  - { id: 4, name: anybody, action: allow, limit: { per-second: 5 } }
  - { id: 5, name: narrow, subject: sshd, action: deny }
  - { id: 6, name: again, action: deny }
  - { id: 7, name: late log, action: log }
  - { id: 8, name: bind, direction: in, subject: sshd, action: allow }
  - { id: 9, name: create, direction: create, action: deny }
";
    let text = text.replace("SUM", &"0".repeat(64));
    let document = Document::parse("p.yaml", &text).unwrap();
    let policy = document.compile(&mut super::Sources::new("/")).unwrap();
    let sockets = policy.sockets().unwrap();
    let shadowed = |policy: &CompiledPolicy| -> Vec<String> {
        let shadowed = policy.sockets().unwrap().shadowed();
        shadowed.map(|(rule, first)| format!("{rule} < {first}")).collect()
    };
    assert_eq!(
        shadowed(&policy),
        [
            "rule 5 (`narrow`, p.yaml:9:5) < rule 4 (`anybody`, p.yaml:8:5)",
            "rule 6 (`again`, p.yaml:10:5) < rule 4 (`anybody`, p.yaml:8:5)",
            "rule 7 (`late log`, p.yaml:11:5) < rule 4 (`anybody`, p.yaml:8:5)",
            "rule 8 (`bind`, p.yaml:12:5) < rule 3 (`in`, p.yaml:7:5)",
        ]
    );
    // What narrows a rule leaves something to later rules.
    for key in [
        "subject: sshd",
        "subject: { uid: 0 }",
        "subject: { spoofable-comm: a }",
        "to: 192.0.2.1",
        "ports: 1-65535",
        "protocol: tcp",
    ] {
        let narrowed = text.replace("anybody,", &format!("anybody, {key},"));
        let document = Document::parse("p.yaml", &narrowed).unwrap();
        let policy = document.compile(&mut super::Sources::new("/")).unwrap();
        let first = &shadowed(&policy)[0];
        assert!(first.starts_with("rule 7"), "{key}: {first}");
    }
    let named = sockets.naming_file("/usr/sbin/sshd".as_ref()).unwrap();
    assert_eq!(named.to_string(), "rule 5 (`narrow`, p.yaml:9:5)");
    assert!(sockets.naming_file("/b".as_ref()).is_none());
}

#[test]
fn kinds_of_sockets_are_no_protocols_of_packets() {
    let parse = |protocol: &str| {
        let tuple = format!("{{ id: 1, name: a, action: drop, protocol: {protocol} }}");
        Document::parse("p.yaml", &format!("tuples:\n  - {tuple}\n"))
    };
    for name in ["raw", "packet"] {
        let refused = parse(name).unwrap_err();
        assert_eq!(refused.path().to_string(), "tuples[0].protocol");
        assert!(refused.to_string().starts_with("p.yaml:2:"), "{refused}");
        let words = format!("`{name}` is a kind of socket and no protocol of packets");
        assert!(refused.to_string().contains(&words), "{refused}");
    }
    let unknown = parse("tpc").unwrap_err().to_string();
    assert!(unknown.contains("tpc") && !unknown.contains("packet"), "{unknown}");
    for (number, expected) in [("254", 254), ("255", 255), ("tcp", 6)] {
        let tuple = &parse(number).unwrap().tuples[0];
        assert_eq!(tuple.protocol, Some(crate::Protocol(expected)), "{number}");
    }
}

/// What earlier versions of the format called things is the same policy still.
#[test]
fn former_words_are_read() {
    const FORMER: &str = "
default: drop
malformed: pass
non-ip: pass
sets:
  - { rule: 1, name: office, action: allow, cidrs: 10.20.0.0/16 }
tuples:
  - { rule: 2, name: web, action: log, dport: 443, protocol: tcp }
socket-defaults: { out: drop, in: pass, create: drop }
rules:
  - { id: 1, name: updates, who: { uid: 42 }, action: allow }
";
    let compiled = |text: &str| {
        Document::parse("p.yaml", text).unwrap().compile(&mut super::Sources::new("/")).unwrap()
    };
    let former = compiled(FORMER);
    let mut present = FORMER.to_owned();
    for (old, new) in [
        ("malformed: pass", "malformed: allow"),
        ("non-ip: pass", "non-ip: allow"),
        ("rule: 1", "id: 1"),
        ("rule: 2", "id: 2"),
        ("out: drop", "out: deny"),
        ("in: pass", "in: allow"),
        ("create: drop", "create: deny"),
        ("who:", "subject:"),
    ] {
        assert!(present.contains(old), "{old}");
        // Each alone, and with all before it.
        let alone = compiled(&FORMER.replace(old, new));
        present = present.replace(old, new);
        for policy in [alone, compiled(&present)] {
            assert_eq!(policy.id(), former.id(), "{new}");
            assert_eq!(policy.rules(), former.rules(), "{new}");
            assert_eq!(policy.settings(), former.settings(), "{new}");
        }
    }
    let all = "default: pass\nrules:\n  - { id: 1, name: a, action: deny }\n";
    assert_eq!(compiled(all).id(), compiled(&all.replace("pass", "allow")).id());
    // Errors have their places, and the words that are written.
    let error = |text: &str| Document::parse("p.yaml", text).unwrap_err().to_string();
    let unknown = error(
        "subjects: { apt: { uid: 1 } }\nrules: [{ id: 1, name: a, who: atp, action: deny }]\n",
    );
    let place = "p.yaml:2:32: rules[0].who: no subject is called `atp`: did you mean `apt`?";
    assert_eq!(unknown, place);
    let both = error("sets: [{ id: 1, rule: 1, name: a, action: drop, cidrs: 10.0.0.1 }]\n");
    assert!(both.contains("duplicate field `id`"), "{both}");
    // They are not suggested.
    let unknown = error("sets: [{ rul: 1, name: a, action: drop, cidrs: 10.0.0.1 }]\n");
    assert!(unknown.contains("unknown key `rul`: expected `id`, `name`"), "{unknown}");
    assert!(!unknown.contains("`rule`"), "{unknown}");
}

#[test]
fn documents_go_between_threads() {
    fn goes<T: Send + Sync + Clone>(_: &T) {}
    goes(&Document::parse("p.yaml", "default: allow").unwrap());
}

/// Every key of a feed, and one that has none.
#[cfg(all(unix, feature = "feed"))]
pub(super) const FEEDS: &str = r#"
feeds:
  drop: { source: "https://feeds.example/drop.txt" }
  feodo:
    source: http://feeds.example/ipblocklist.csv?key=1
    format: csv
    column: dst_ip
    bad-lines: lenient
    refresh: 15m
    timeout: 30s
    max-bytes: 64 KiB
    entries: { min: 0, max: 10000 }
    change: { shrink: 10, growth: 400 }
    max-skipped: 3
    coverage: { ipv4: /8, ipv6: /0 }
    protect: [192.0.2.0/24, "2001:db8::7"]
    allow-private: true
    if-missing: refuse
    sha256-at: file:///srv/sums
    danger-allow-http: true
  pinned: { source: /srv/list, format: stix, max-bytes: 1000, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef, change: { growth: 5 }, entries: { max: 7 }, coverage: { ipv6: /64 } }
addresses:
  bad: { feeds: [drop, feodo] }
sets:
  - { id: 1, name: a, action: drop, feeds: pinned, addresses: bad }
"#;

#[cfg(all(unix, feature = "feed"))]
#[test]
fn declared_feeds_are_described() {
    use std::time::Duration;

    use crate::feed::{FeedSpec, IfMissing};
    use crate::list::{BadLines, ListFormat};

    let specs = Document::parse("p.yaml", FEEDS).unwrap().feed_specs().unwrap();
    let feodo = FeedSpec::new("feodo", "http://feeds.example/ipblocklist.csv?key=1")
        .unwrap()
        .format(ListFormat::csv_column("dst_ip"))
        .bad_lines(BadLines::Lenient)
        .refresh(Duration::from_secs(900))
        .timeout(Duration::from_secs(30))
        .max_bytes(65536)
        .entries(0, 10_000)
        .change(10, 400)
        .max_skipped(3)
        .coverage(8, 0)
        .protect(["192.0.2.0/24", "2001:db8::7"].map(|text| text.parse().unwrap()))
        .allow_private(true)
        .if_missing(IfMissing::Refuse)
        .sha256_at("file:///srv/sums")
        .unwrap()
        .danger_allow_http(true);
    let sum = "0123456789abcdef".repeat(4);
    let pinned = FeedSpec::new("pinned", "/srv/list")
        .unwrap()
        .format(ListFormat::Stix)
        .max_bytes(1000)
        .sha256(sum.parse().unwrap())
        .entries(1, 7)
        .change(50, 5)
        .coverage(6, 64);
    let drop = FeedSpec::new("drop", "https://feeds.example/drop.txt").unwrap();
    assert_eq!(specs, [drop, feodo, pinned]);
    for (written, seconds) in [("60s", 60), ("2h", 7200), ("366d", 31_622_400)] {
        let text = format!("feeds: {{ a: {{ source: /x, refresh: {written} }} }}\n");
        let specs = Document::parse("p.yaml", &text).unwrap().feed_specs().unwrap();
        assert_eq!(specs[0].refresh.as_secs(), seconds);
    }
}

#[cfg(all(unix, feature = "feed"))]
#[test]
fn errors_in_feeds_name_the_place_and_the_cause() {
    for (text, expected) in [
        (
            "feeds:\n  «Drop: { source: /x }\n",
            "feeds: `Drop` is no name of a feed: use 1 to 64 lower-case letters, digits, `-` and `_`, the first of them a letter or a digit",
        ),
        ("feeds:\n  a: «{ format: csv }\n", "feeds.a: the key `source` is missing"),
        (
            "feeds:\n  a: { source: /x, «formt: csv }\n",
            "feeds.a: unknown key `formt`: did you mean `format`?",
        ),
        (
            "feeds:\n  a: { source: «list.txt }\n",
            "feeds.a.source: `list.txt` is no source of a feed: expected https://, file:/// or an absolute path",
        ),
        (
            "feeds:\n  a: { source: «\"https://u:secret@x/?secret\" }\n",
            "feeds.a.source: `https://` is no source of a feed: expected a URL without user and password",
        ),
        (
            "feeds:\n  a:\n    source: «http://x/list\n",
            "feeds.a.source: over plain HTTP any host on the path can write the feed: use https, or say `danger-allow-http: true`",
        ),
        (
            "feeds:\n  a: { source: https://x/list, sha256-at: «http://x/sum }\n",
            "feeds.a.sha256-at: over plain HTTP any host on the path can write the feed: use https, or say `danger-allow-http: true`",
        ),
        (
            "feeds:\n  a: { source: /x, sha256-at: «sum }\n",
            "feeds.a.sha256-at: `sum` is no source of a feed: expected https://, file:/// or an absolute path",
        ),
        (
            "feeds:\n  a: { source: /x, sha256: «abc }\n",
            "feeds.a.sha256: expected a SHA-256 checksum of 64 hexadecimal digits",
        ),
        (
            "feeds:\n  a: { source: /x, format: «tsv }\n",
            "feeds.a.format: unknown value `tsv`: did you mean `csv`?",
        ),
        (
            "feeds:\n  a: { source: /x, column: «ip }\n",
            "feeds.a.column: columns are those of `format: csv`",
        ),
        (
            "feeds:\n  a: { source: /x, if-missing: «refused }\n",
            "feeds.a.if-missing: unknown value `refused`: did you mean `refuse`?",
        ),
        (
            "feeds:\n  a: { source: /x, refresh: «15 }\n",
            "feeds.a.refresh: `15` is no time: write a number and s, m, h or d, such as 90s or 15m",
        ),
        (
            "feeds:\n  a: { source: /x, refresh: «15 m }\n",
            "feeds.a.refresh: `15 m` is no time: write a number and s, m, h or d, such as 90s or 15m",
        ),
        ("feeds:\n  a: { source: /x, refresh: «59s }\n", "feeds.a.refresh: shorter than 60s"),
        (
            "feeds:\n  a: { source: /x, timeout: «0s }\n",
            "feeds.a.timeout: `0s` is not from 1s to 366d",
        ),
        (
            "feeds:\n  a: { source: /x, timeout: «18446744073709551615d }\n",
            "feeds.a.timeout: `18446744073709551615d` is not from 1s to 366d",
        ),
        (
            "feeds:\n  a: { source: /x, max-bytes: «32 MB }\n",
            "feeds.a.max-bytes: `32 MB` is no size: write bytes, or a number and KiB, MiB or GiB, such as 32 MiB",
        ),
        (
            "feeds:\n  a: { source: /x, max-bytes: «99999999999999 GiB }\n",
            "feeds.a.max-bytes: `99999999999999 GiB` is no size: write bytes, or a number and KiB, MiB or GiB, such as 32 MiB",
        ),
        (
            "feeds:\n  a: { source: /x, entries: «{ min: 9, max: 8 } }\n",
            "feeds.a.entries: at least 9 and at most 8 is never",
        ),
        (
            "feeds:\n  a: { source: /x, change: { shrink: «101 } }\n",
            "feeds.a.change.shrink: `101` is not from 0 to 100",
        ),
        (
            "feeds:\n  a: { source: /x, coverage: { ipv4: «/33 } }\n",
            "feeds.a.coverage.ipv4: `/33` is not a prefix length from /0 to /32",
        ),
        (
            "feeds:\n  a: { source: /x, coverage: { ipv6: «19 } }\n",
            "feeds.a.coverage.ipv6: `19` is not a prefix length from /0 to /128",
        ),
        (
            "feeds:\n  a: { source: /x, protect: [«10.0.0.1/8] }\n",
            "feeds.a.protect[0]: `10.0.0.1/8` has host bits: write 10.0.0.0/8",
        ),
        (
            "feeds:\n  drop: { source: /x }\naddresses:\n  a: { feeds: [drop, «dorp] }\n",
            "addresses.a.feeds[1]: no feed is called `dorp`: did you mean `drop`?",
        ),
        (
            "feeds:\n  drop: { source: /x }\nsets:\n  - { id: 1, name: a, action: drop, feeds: «ipsum }\n",
            "sets[0].feeds: no feed is called `ipsum`",
        ),
    ] {
        fails_at_mark(text, expected);
    }
}

#[cfg(not(all(unix, feature = "feed")))]
#[test]
fn feeds_need_their_feature() {
    fails_at_mark(
        "feeds: «{ drop: { source: /x } }\n",
        "feeds: this program was built without the feature `feed`: it has no feeds that a file declares",
    );
}

#[test]
fn what_is_no_text_has_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yaml");
    for (bytes, expected) in [
        (&b"rules: []\r\n# \xc3\xa4 \0"[..], "2:5: the character U+0000, which YAML does not have"),
        (b"default: \"a\x1b[31m\"", "1:12: the character U+001B"),
        (b"default: allow\r# \xff", "2:3: byte 0xff, which is no UTF-8"),
        (b"\xc3", "1:1: byte 0xc3"),
        (b"BZh91AY&SY", " it is a bzip2 file, not text in UTF-8: convert it first"),
        (b"\xff\xfe\0\0", " it is UTF-32 text, not text in UTF-8: convert it first"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Document::read(&path).unwrap_err().to_string();
        let rest = error.strip_prefix(&*format!("{}:", path.display()));
        assert!(rest.is_some_and(|rest| rest.starts_with(expected)), "{error}");
    }
    let error = Document::parse("x", "default: \"a\0\"").unwrap_err().to_string();
    assert!(error.contains("write it as `\\u0000` in double quotes"), "{error}");
    assert!(Document::read(dir.path()).unwrap_err().to_string().contains("directory"));
}

/// Whichever way a document is compiled.
#[test]
fn what_compiling_refuses_has_its_place() {
    let text = "tuples:\n  - { id: 1, name: a, action: drop, protocol: udp }\n  - { id: 2, name: b, action: drop, dport: 1 }\n";
    let document = Document::parse("x.yaml", text).unwrap();
    let folder = std::path::Path::new("/");
    let by_policy = document.policy(folder).unwrap().compile().unwrap_err().to_string();
    assert!(by_policy.starts_with("x.yaml:3:5: tuples[1]: rule 2 (`b`)"), "{by_policy}");
    let direct = document.compile(&mut Sources::new(folder)).unwrap_err().to_string();
    assert_eq!(by_policy, direct);
    let document = Document::parse("x.yaml", "gateways: [10.0.0.1, 224.0.0.1]\n").unwrap();
    let error = document.compile(&mut Sources::new(folder)).unwrap_err().to_string();
    assert!(error.starts_with("x.yaml:1:22: gateways[1]: `224.0.0.1` is no gateway"), "{error}");
}

#[test]
fn file_rules_are_described() {
    use crate::file::{FileAction, FileOps, FileScope};
    let document = Document::parse("p.yaml", &WHOLE[WHOLE.find("files:\n").unwrap()..]).unwrap();
    let policy = document.compile(&mut Sources::new(".")).unwrap();
    let [one, two] = policy.files().unwrap().rules() else { panic!("two") };
    assert_eq!((one.id, one.name.as_str()), (RuleId(1), "configuration"));
    assert_eq!((one.action, one.dry_run), (FileAction::Deny, true));
    assert_eq!(one.ops, FileOps::CHANGE | FileOps::READ);
    let file = |path: &str| FileScope::File(path.into());
    let (tree, glob) = (FileScope::Tree("/etc/my-agent".into()), "/etc/cron.d/*".to_owned());
    let scopes = [file("/etc/shadow"), file("/etc/passwd"), tree, FileScope::Glob(glob)];
    assert_eq!(one.scopes, scopes);
    assert_eq!(one.except.len(), 2);
    assert_eq!(one.described_at.as_deref(), Some("p.yaml:2:5"));
    assert_eq!((two.action, two.ops, two.dry_run), (FileAction::Log, FileOps::CHANGE, false));
    // What the whole document does not do, no rule does.
    let text = "dry-run: true\nfiles:\n  - { id: 1, name: a, action: deny, files: /a }\n";
    let policy = Document::parse("p", text).unwrap().compile(&mut Sources::new(".")).unwrap();
    assert!(policy.files().unwrap().rules()[0].dry_run);
}

/// Each limit can be set by the key that its error names.
#[test]
fn limits_are_set_where_their_errors_say() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "10.0.0.1\nx\ny\n10.0.0.3\n").unwrap();
    let set = "sets: [{ id: 1, name: a, action: drop, lists: a.txt, bad-lines: lenient }]\n";
    let tuples = "tuples: [{ id: 1, name: a, action: drop, protocol: udp }, { id: 1, name: a, action: drop, protocol: tcp }]\n";
    let compile = |text: &str| {
        Document::parse("p", text).unwrap().compile(&mut Sources::new(dir.path())).map(|_| ())
    };
    for (outer, key, rest, few, enough) in [
        ("list-limits", "max-bytes", set, "21", "22"),
        ("list-limits", "max-entries", set, "1", "2"),
        ("list-limits", "max-skipped", set, "1", "2"),
        ("policy-limits", "max-bytes", set, "100", "1 MiB"),
        ("policy-limits", "max-prefixes", set, "1", "2"),
        ("policy-limits", "max-tuples", tuples, "3", "4"),
    ] {
        let text = |value: &str| format!("{outer}: {{ {key}: {value} }}\n{rest}");
        let error = compile(&text(few)).unwrap_err().to_string();
        assert!(error.contains(&format!("(in a policy file `{outer}.{key}`")), "{error}");
        compile(&text(enough)).unwrap();
    }
    let document = Document::parse("p", WHOLE).unwrap();
    let limits = document.policy_limits.limits();
    let room = (limits.socket_rule_slots, limits.socket_rows, limits.socket_cells);
    assert_eq!(room, (Some(8000), Some(2000), Some(70_000)));
}
