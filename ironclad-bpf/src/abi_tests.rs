//! What C and Rust say of the same structs: sizes, fields and offsets in the object's BTF against
//! `ironclad_core::abi`.

use std::mem::MaybeUninit;

use ironclad_core::abi;
use libbpf_rs::btf::types::{MemberAttr, Struct};
use libbpf_rs::btf::{Btf, HasSize};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{AsRawLibbpf, OpenObject};

use crate::skel::cgroup::CgroupSkelBuilder;
use crate::skel::process::ProcessSkelBuilder;
use crate::skel::sentinel::SentinelSkelBuilder;
use crate::skel::xdp_policy::XdpPolicySkelBuilder;

type Fields<'a> = &'a [(&'a str, usize)];

fn compare(btf: &Btf<'_>, name: &str, size: usize, fields: Fields<'_>) {
    let found = btf.type_by_name::<Struct<'_>>(name).unwrap_or_else(|| panic!("no {name} in BTF"));
    assert_eq!(found.size(), size, "size of {name}");
    let in_c: Vec<(String, usize)> = found
        .iter()
        .map(|member| {
            let field = member.name.map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            let MemberAttr::Normal { offset } = member.attr else { panic!("bitfield in {name}") };
            (field, offset as usize / 8)
        })
        .collect();
    let in_rust: Vec<(String, usize)> =
        fields.iter().map(|(field, offset)| ((*field).to_owned(), *offset)).collect();
    assert_eq!(in_c, in_rust, "fields of {name}");
}

macro_rules! structs {
    ($btf:expr; $($c:ident = $rust:ident { $($field:ident $(as $other:ident)?),* })*) => {
        $(compare($btf, stringify!($c), size_of::<abi::$rust>(), &[
            $((structs!(@name $field $($other)?), std::mem::offset_of!(abi::$rust, $field))),*
        ]);)*
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $other:ident) => { stringify!($other) };
}

fn with_btf(object: &OpenObject, compare: impl FnOnce(&Btf<'_>)) {
    // SAFETY: the object stays open for as long as it is borrowed.
    let object = unsafe { object.as_libbpf_object().as_ref() };
    compare(&Btf::from_bpf_object(object).unwrap().unwrap());
}

#[test]
fn rust_and_c_agree_on_sockets() {
    let mut storage = MaybeUninit::uninit();
    let open = CgroupSkelBuilder::default().open(&mut storage).unwrap();
    with_btf(open.open_object(), |btf| {
        structs! { btf;
            ic_file_id = FileId { ino, dev, generation }
            ic_process = Process {
                exe, parent, exec_ns, parent_exec_ns, exe_changed_ns, start_ns, ancestry, exe_row, parent_row,
                user_row, user_epoch, exec_id, ppid, flags
            }
            ic_sock_row = SockRow { summary, logs, word }
            ic_sock_policy = SockPolicy {
                generation, epoch, dims, summary, levels, root4, root6, rate, verdict, dry_run,
                logs, ancestries, rules,
                level, none, packets, _pad, kind
            }
            ic_sock_id_key = SockIdKey { generation, dim, value }
            ic_sock_id_val = SockIdVal { until_ns, changed_ns, row, changed_row }
            ic_sock_ports = SockPorts { row }
            ic_sock_rule = SockRule {
                interval_ns, burst_ns, number, slot, bucket, report_rate, action, flags, logs,
                _pad
            }
            ic_sock_stats = SockStats { allowed, denied, limited, dry, logged }
            ic_token_bucket = Bucket { full_ns, lock, _pad }
            ic_sock_ev = SockEvent {
                hdr, generation, cgroup, exec_ns, ancestry, exe, parent, pid, tid, ppid, uid, gid,
                rule, addr, comm, port, family, op, proto, verdict, reason, flags
            }
        }
    });
    let mut storage = MaybeUninit::uninit();
    let open = ProcessSkelBuilder::default().open(&mut storage).unwrap();
    with_btf(open.open_object(), |btf| {
        structs! { btf;
            ic_process_ctl = ProcessCtl { owner, forget }
            ic_open_file = OpenFile { file, changed_ns, fd, nlink, writers, _pad }
            ic_open_socket = OpenSocket { fd, may_lose_group, has_lost_group, _pad }
            ic_exe_name = ExeName { path }
        }
    });
}

#[test]
fn rust_and_c_agree_on_sentinel() {
    let mut storage = MaybeUninit::uninit();
    let open = SentinelSkelBuilder::default().open(&mut storage).unwrap();
    with_btf(open.open_object(), |btf| {
        structs! { btf;
            ic_sentinel = Sentinel {
                word, gate, gate_log, is_armed, canary, canary_hook, adopting, refuse, mount_namespace,
                lost, group, candidates, launch, root_mount, filters, probes,
                open_until_ns
            }
            ic_secret_key = SecretKey { word }
            ic_secret_val = SecretVal { exe, mark, flags }
            ic_mark = Mark { start_ns, flags, _pad }
            ic_exemptions = Exemption { rules, may }
            ic_sentinel_ev = SentinelEvent {
                hdr, lost, cgroup, exec_ns, rules, exe, parent, file, pid, tid, ppid, uid, gid, target,
                detail, hook, op, verdict, flags, comm, path_len, path_cut, _pad, path
            }
            ic_label = Label { own, below, flags, names }
            ic_name_key = NameKey { dir, hash, len, _pad }
            ic_name_val = NameVal { rules }
            ic_file_policy = FilePolicy { op, deny, log, below }
        }
    });
}

#[test]
fn rust_and_c_agree() {
    let mut storage = MaybeUninit::uninit();
    let open = XdpPolicySkelBuilder::default().open(&mut storage).unwrap();
    with_btf(open.open_object(), |btf| {
        structs! { btf;
            ic_ev_hdr = EventHeader { kind, len, cpu, time_ns }
            ic_shield_ev = ShieldEvent {
                hdr, generation, ifindex, rule, entry, packet_len, src, dst, sport, dport, vlan, family,
                proto, verdict, reason, flags, _pad
            }
            ic_flat_slot = FlatSlot { reference as ref, touched }
            ic_flat_runs = FlatRuns { refs as ref, starts }
            ic_flat_wide = FlatWide { refs as ref, starts }
            ic_flat_bitmap = FlatBitmap { starts, rank, base, _pad }
            ic_flat_skip = FlatSkip { key, mask, hit, miss, low, depth }
            ic_stats = Stats { packets, bytes, dry_packets, dry_bytes }
            ic_entry = Entry { packets, rule, log_rule, action, log, _pad }
            ic_tuple_key = TupleKey { src, dst, dport, proto, kind, shape }
            ic_tuple_val = TupleVal { packets, rule, log_rule, action, log, _pad }
            ic_tuple_mask = TupleMask { src, dst, dport, proto, kind, _pad }
            ic_lpm4_key = Lpm4Key { prefixlen, addr }
            ic_lpm6_key = Lpm6Key { prefixlen, addr }
            ic_gateways = Gateways { count4, count6, addr4, addr6 }
            ic_generation = Generation { number, policy, cells, entries, tuples, _pad }
            ic_state = State { magic, abi, selector, gateways_active, _pad, gateways, generation }
            ic_report_budget = Sample { window, sent, lock }
        }
    });
}
