//! The structs of `ironclad_core::abi` against the BTF of the programs: sizes, fields and offsets.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;

use ironclad_core::abi::{LAYOUTS, Layout};
use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::btf::{Btf, HasSize};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{AsRawLibbpf, OpenObject};

use crate::skel::cgroup::CgroupSkelBuilder;
use crate::skel::lsm_socket::LsmSocketSkelBuilder;
use crate::skel::process::ProcessSkelBuilder;
use crate::skel::sentinel::SentinelSkelBuilder;
use crate::skel::xdp_dispatch::XdpDispatchSkelBuilder;
use crate::skel::xdp_policy::XdpPolicySkelBuilder;

fn compare(found: &Struct<'_>, layout: &Layout) {
    let Layout { name, size, fields } = layout;
    assert_eq!(found.size(), *size, "size of {name}");
    let in_c: Vec<_> = found
        .iter()
        .map(|member| {
            let field = member.name.map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            let MemberAttr::Normal { offset } = member.attr else { panic!("bitfield in {name}") };
            (field, offset as usize / 8)
        })
        .collect();
    let in_rust: Vec<_> =
        fields.iter().map(|(field, offset)| ((*field).to_owned(), *offset)).collect();
    assert_eq!(in_c, in_rust, "fields of {name}");
}

/// Compares the structs that an object uses, and returns their names.
fn structs(object: &OpenObject) -> BTreeSet<&'static str> {
    // SAFETY: the object stays open for as long as it is borrowed.
    let object = unsafe { object.as_libbpf_object().as_ref() };
    let btf = Btf::from_bpf_object(object).unwrap().unwrap();
    let in_use = LAYOUTS.iter().filter_map(|layout| {
        let found = btf.type_by_name::<Struct<'_>>(layout.name)?;
        compare(&found, layout);
        Some(layout.name)
    });
    in_use.collect()
}

#[test]
fn rust_and_c_agree() {
    let mut found = BTreeSet::new();
    macro_rules! objects {
        ($($builder:ident),*) => {$(
            let mut storage = MaybeUninit::uninit();
            let open = $builder::default().open(&mut storage).unwrap();
            found.append(&mut structs(open.open_object()));
        )*};
    }
    objects!(
        CgroupSkelBuilder,
        LsmSocketSkelBuilder,
        ProcessSkelBuilder,
        SentinelSkelBuilder,
        XdpDispatchSkelBuilder,
        XdpPolicySkelBuilder
    );
    let names: BTreeSet<_> = LAYOUTS.iter().map(|layout| layout.name).collect();
    assert_eq!(found, names, "structs that some object uses, and all structs");
}
