//! Feeds that a policy file declares: from the server to the compiled policy, and back from the cache.

mod feed_lab;

use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use feed_lab::{Lab, at};
use ironclad_core::audit::AuditAction;
use ironclad_policy::CompiledPolicy;
use ironclad_policy::document::{Document, DocumentError, Problem, Sources};
use ironclad_policy::feed::{FeedSet, Outcome, Rejection, Why};

/// A server that answers with what is set.
struct Publisher {
    lab: Lab,
    content: Arc<Mutex<String>>,
}

impl Publisher {
    fn new(content: &str) -> Self {
        let content = Arc::new(Mutex::new(content.to_owned()));
        let answer = Arc::clone(&content);
        let lab = Lab::new(move |_, client| {
            let content = answer.lock().unwrap().clone();
            client.answer(200, &[], content)
        });
        Self { lab, content }
    }

    fn publish(&self, content: &str) {
        *self.content.lock().unwrap() = content.to_owned();
    }

    fn document(&self, more: &str) -> Document {
        let source = self.lab.server.url("/bad");
        let text = format!(
            "feeds:\n  bad: {{ source: \"{source}\", danger-allow-http: true{more} }}\n\
             addresses:\n  scanners: {{ feeds: bad }}\n\
             sets:\n  - {{ id: 1, name: scan, action: drop, addresses: scanners, cidrs: [203.0.113.0/24] }}\n\
             rules:\n  - {{ id: 1, name: no scanners, to: scanners, action: deny }}\n"
        );
        Document::parse("p.yaml", &text).unwrap()
    }

    /// The declared feeds as an agent that starts anew has them.
    fn feeds(&self, document: &Document) -> FeedSet {
        FeedSet::new(self.lab.reopened(), document.feed_specs().unwrap()).unwrap()
    }
}

fn compile(document: &Document, feeds: &FeedSet) -> Result<CompiledPolicy, DocumentError> {
    document.compile(&mut Sources::new("/nowhere").feeds(&mut &*feeds))
}

/// Whether the policy drops packets from each of these.
fn drops<const N: usize>(policy: &CompiledPolicy, addresses: [&str; N]) -> [bool; N] {
    addresses.map(|text| {
        let address: IpAddr = text.parse().unwrap();
        policy.explain(address).to_string().contains("drop by rule 1 (`scan`)")
    })
}

fn refresh(publisher: &Publisher, feeds: &FeedSet, hours: u64) -> Outcome {
    let mut outcomes = feeds.refresh_due(&publisher.lab.fetcher, at(hours));
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).1
}

const WATCHED: [&str; 5] =
    ["198.51.100.7", "2001:db8:bad::1", "8.8.8.8", "10.0.0.1", "203.0.113.1"];
const FIRST: [bool; 5] = [true, true, false, false, true];

#[test]
fn from_the_server_to_the_policy_and_through_a_poisoned_version() {
    let publisher = Publisher::new("198.51.100.0/24\n2001:db8:bad::/48\n");
    let document = publisher.document("");
    let feeds = publisher.feeds(&document);
    let nothing = compile(&document, &feeds).unwrap();
    assert_eq!(drops(&nothing, WATCHED), [false, false, false, false, true]);

    let outcome = refresh(&publisher, &feeds, 0);
    assert!(matches!(outcome, Outcome::Updated { entries: 2, .. }), "{outcome:?}");
    let good = compile(&document, &feeds).unwrap();
    assert_eq!(drops(&good, WATCHED), FIRST);
    assert_eq!(good.sockets().unwrap().rules().len(), 1);

    // Each would have dropped what must not be dropped: with the bounds off, it does.
    for (hour, (poison, bound)) in (1..).map(|n| n * 50).zip([
        ("0.0.0.0/0\n", "coverage"),
        ("0.0.0.0/1\n128.0.0.0/1\n", "coverage"),
        ("8.0.0.0/7\n12.0.0.0/7\n16.0.0.0/7\n", "coverage"),
        ("2000::/3\n", "coverage"),
        ("198.51.100.0/24\n10.0.0.0/8\n", "allow-private"),
        ("198.51.100.0/24\n127.0.0.1\n", "allow-private"),
        ("198.51.100.0/24\n8.8.8.8\n", "protect"),
        ("198.51.100.0/24\n8.8.0.0/16\n", "protect"),
    ]) {
        let document = publisher.document(", protect: 8.8.8.8");
        let feeds = publisher.feeds(&document);
        publisher.publish(poison);
        let outcome = refresh(&publisher, &feeds, hour);
        let Outcome::Kept { why: Why::Content(rejection) } = &outcome else {
            panic!("{outcome:?}")
        };
        let is_typed = match bound {
            "coverage" => matches!(rejection, Rejection::TooWide { .. }),
            "protect" => matches!(rejection, Rejection::Untouchable { is_private: false, .. }),
            _ => matches!(rejection, Rejection::Untouchable { is_private: true, .. }),
        };
        assert!(is_typed && rejection.to_string().contains(&format!("(`{bound}`)")), "{rejection}");
        let after = compile(&document, &feeds).unwrap();
        assert_eq!(drops(&after, WATCHED), FIRST, "{poison}");
        assert_eq!(after.id(), good.id());

        let open = ", coverage: { ipv4: /0, ipv6: /0 }, allow-private: true";
        let open = publisher.document(open);
        let path = publisher.lab.dir().with_file_name(format!("open{hour}"));
        let cache = feed_lab::open(path).unwrap();
        let feeds = FeedSet::new(cache, open.feed_specs().unwrap()).unwrap();
        let outcome = refresh(&publisher, &feeds, hour);
        assert!(matches!(outcome, Outcome::Updated { .. }), "{outcome:?}");
        assert_ne!(drops(&compile(&open, &feeds).unwrap(), WATCHED), FIRST, "{poison}");
    }

    // The network is gone, and so is the process.
    let Publisher { lab, .. } = publisher;
    let Lab { server, temporary, .. } = lab;
    drop((server, feeds));
    let cache = feed_lab::open(temporary.path().join("feeds")).unwrap();
    let feeds = FeedSet::new(cache, document.feed_specs().unwrap()).unwrap();
    let policy = compile(&document, &feeds).unwrap();
    assert_eq!(drops(&policy, WATCHED), FIRST);
    let policy = document.policy_from(&mut Sources::new("/").feeds(&mut &feeds)).unwrap();
    assert!(policy.reports().all(|report| report.missing.is_none()));
}

#[test]
fn what_a_feed_must_not_touch_from_now_on_is_not_in_what_is_loaded() {
    let publisher = Publisher::new("198.51.100.0/24\n");
    let before = publisher.document("");
    refresh(&publisher, &publisher.feeds(&before), 0);
    let watched = ["198.51.100.7"];
    assert_eq!(drops(&compile(&before, &publisher.feeds(&before)).unwrap(), watched), [true]);
    // The file is changed, the content is what it was.
    let after = publisher.document(", protect: 198.51.100.7");
    let feeds = publisher.feeds(&after);
    assert_eq!(drops(&compile(&after, &feeds).unwrap(), watched), [false]);
    let Outcome::Kept { why } = refresh(&publisher, &feeds, 1) else { panic!() };
    assert!(why.to_string().contains("198.51.100.0/24 touches 198.51.100.7/32"), "{why}");
    // Put right again, all is there.
    assert_eq!(drops(&compile(&before, &publisher.feeds(&before)).unwrap(), watched), [true]);
}

#[test]
fn a_feed_without_a_good_version_stands_empty_aloud_or_is_refused() {
    let publisher = Publisher::new("198.51.100.0/24\n");
    let lab = &publisher.lab;
    let feeds = |document: &Document| {
        let records = Arc::clone(&lab.records);
        let cache = ironclad_policy::feed::FeedCache::open(lab.dir(), "lab", records).unwrap();
        FeedSet::new(cache, document.feed_specs().unwrap()).unwrap()
    };
    let empty = publisher.document("");
    let refuse = publisher.document(", if-missing: refuse");
    let refused = |why: &str| {
        let error = compile(&refuse, &feeds(&refuse)).unwrap_err();
        assert!(matches!(error.problem(), Problem::Feed { .. }), "{error}");
        let text = error.to_string();
        let place = "p.yaml:4:22: addresses.scanners.feeds: feed `bad`: ";
        assert!(text.starts_with(place) && text.contains(why), "{text}");
        assert!(text.ends_with("(`if-missing: refuse`)"), "{text}");
    };
    let stands_empty = |why: &str| {
        let feeds = feeds(&empty);
        lab.records.take();
        let policy = empty.policy_from(&mut Sources::new("/").feeds(&mut &feeds)).unwrap();
        let missing = |record: &AuditAction| matches!(record, AuditAction::FeedMissing { feed, reason } if feed == "bad" && reason.contains(why));
        assert_eq!(lab.records.take().iter().filter(|record| missing(record)).count(), 1);
        let message: Vec<String> = policy.reports().map(ToString::to_string).collect();
        assert!(
            message
                .iter()
                .any(|message| message.starts_with("bad: stands empty: ") && message.contains(why)),
            "{message:?}"
        );
        // The rest of the policy protects, and an empty set is not anywhere.
        let policy = policy.compile().unwrap();
        assert_eq!(drops(&policy, WATCHED), [false, false, false, false, true]);
        // Nothing is left out without its record.
        lab.records.breaks(true);
        let error = compile(&empty, &feeds).unwrap_err().to_string();
        assert!(error.contains("audit record not kept: the disk is full"), "{error}");
        lab.records.breaks(false);
    };
    refused("it has no good version yet");
    stands_empty("it has no good version yet");

    refresh(&publisher, &feeds(&empty), 0);
    assert!(drops(&compile(&refuse, &feeds(&refuse)).unwrap(), WATCHED)[0]);
    lab.records.take();
    fs::write(lab.dir().join("bad.json"), "{").unwrap();
    refused("no state of a feed");
    assert!(matches!(&lab.records.take()[..], [AuditAction::FeedDamage { .. }]));
    stands_empty("no state of a feed");
    // Damage is repaired at once.
    let outcome = refresh(&publisher, &feeds(&empty), 0);
    assert!(matches!(outcome, Outcome::Updated { entries: 1, .. }), "{outcome:?}");
    assert!(drops(&compile(&refuse, &feeds(&refuse)).unwrap(), WATCHED)[0]);
}

#[test]
fn feeds_that_the_program_does_not_have_are_not_taken_for_empty() {
    let publisher = Publisher::new("");
    let document = publisher.document("");
    let none = FeedSet::new(publisher.lab.reopened(), []).unwrap();
    assert_eq!(
        compile(&document, &none).unwrap_err().to_string(),
        "p.yaml:4:22: addresses.scanners.feeds: feed `bad`: the program that reads this file does not \
         have the feeds that it declares"
    );
    // Without `feeds`, names are those of the program.
    let text = "sets: [{ id: 1, name: scan, action: drop, feeds: bda }]\n";
    let text = Document::parse("p.yaml", text).unwrap();
    let error = compile(&text, &publisher.feeds(&document)).unwrap_err().to_string();
    assert_eq!(error, "p.yaml:1:50: sets[0].feeds: no feed is called `bda`: did you mean `bad`?");
}
