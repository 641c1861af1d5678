use std::path::PathBuf;

use ironclad_core::{Cidr, RuleId, SocketVerdict};

use super::{AddressGroup, Bound, Direction, SocketAction, SocketRule, Subject};
use crate::error::Failure;
use crate::{Limits, Policy};

fn rule(id: u32, subject: Subject) -> SocketRule {
    SocketRule::new(RuleId(id), "one", SocketAction::Deny).subject(subject)
}

fn limited(policy: Policy, bytes: u64) -> String {
    let limits = Limits::default().max_bytes(bytes);
    let refused = policy.clone().limits(limits).compile().unwrap_err();
    let (value, limit) = match refused.failure() {
        Failure::Limit { value, limit, .. } => (*value, *limit),
        _ => panic!("{refused}"),
    };
    assert_eq!(limit, bytes);
    // It is what it says: with as much room, there is none too little.
    let fits = policy.limits(Limits::default().max_bytes(value)).compile().unwrap();
    assert_eq!(fits.memory().total(), value);
    refused.to_string()
}

#[test]
fn what_is_large_is_named() {
    let executables = (1..=500).map(|i| rule(i, Subject::new("").exe(format!("/bin/{i}"))));
    let many = executables.fold(Policy::builder(), Policy::socket_rule);
    let refused = limited(many.clone(), 500 * 1568);
    assert!(refused.contains("most of it for the rows of socket rules"), "{refused}");
    assert!(many.limits(Limits::default().max_bytes(1 << 20)).compile().is_ok());

    let far =
        |i: u32| Cidr::from(std::net::IpAddr::from(i.wrapping_mul(2_654_435_761).to_be_bytes()));
    let group = AddressGroup::new("far").cidrs((0..20_000).map(far));
    let scattered =
        Policy::builder().addresses(group).socket_rule(rule(1, Subject::new("")).to("far"));
    let refused = limited(scattered, 1 << 19);
    assert!(refused.contains("most of it for the addresses of socket rules"), "{refused}");

    // A policy without rules on sockets pays for none.
    let plain = Policy::builder().compile().unwrap();
    assert_eq!(plain.memory().sockets.total(), 0);
}

#[test]
fn an_image_has_at_most_what_was_computed() {
    let subject = || Subject::new("").exe("/bin/a").uid(1).gid(2).cgroup("/a").spoofable_comm("b");
    let policy = Policy::builder()
        .socket_rule(rule(1, subject().parent("/bin/b")).port(80))
        .socket_rule(rule(2, subject().descendant_of("/bin/c")).ports(22..=25))
        .socket_rule(rule(3, subject()).to_cidr("10.0.0.0/8".parse().unwrap()))
        .socket_default(Direction::In, SocketVerdict::Deny)
        .compile()
        .unwrap();
    let sockets = policy.sockets().unwrap();
    let file = |ino| ironclad_core::abi::FileId { ino, ..Default::default() };
    let files = [("/bin/a", 1), ("/bin/b", 2), ("/bin/c", 3)];
    let bound = Bound {
        files: files.map(|(path, ino)| (PathBuf::from(path), file(ino).into())).into(),
        cgroups: [("/a".to_owned(), (7, 1))].into(),
        ancestries: vec![0],
        ..Bound::default()
    };
    let (image, memory) = (sockets.image(&bound).unwrap(), sockets.memory());
    let rows = size_of_val(image.rows.as_slice()) as u64;
    assert!(rows <= memory.rows && memory.rows < 2 * rows, "{rows}: {memory:?}");
    assert_eq!(memory.ports, size_of_val(image.ports.as_slice()) as u64);
    assert_eq!(memory.names, 128 * image.ids.len() as u64);
    assert_eq!(memory.addresses, 64 * sockets.addresses().cells() as u64);
}
