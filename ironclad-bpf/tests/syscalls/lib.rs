//! System calls that tests make and that no safe crate offers. They are unsafe, which is why they are
//! here.

mod attack;
mod disk;
mod first_thread;
mod fork;
mod fuse;
mod impostor;
mod lease;
mod link;
mod nvme;
mod option;
mod program;
mod surroundings;
mod tun;
mod ublk;
mod unspec;
mod uring;
mod word;

pub use attack::{
    Handle, advise, be_root_of_files_alone, chattr, count, decide_on_opens, enable_verity,
    file_setattr, hello, insert_module, kexec_file_load, kexec_load, load_lsm_program,
    load_program, map_to_write, page_out, prlimit, probe, put_over, read_memory, sample_stack,
    seize, set_version, share_mount, signal_by_file, trace, version, watch_tracepoint,
    write_memory,
};
#[cfg(target_arch = "x86_64")]
pub use attack::{allow_ports, chattr_32};
pub use disk::{
    account, change_attribute, clone_range, command, deduplicate, freeze, give_to_loop,
    move_extents, open_as_executed, open_by_xfs_handle, partition, quota_on, run_nbd, scsi_send,
    scsi_write, scsi_write_by_write, set_up_again, set_writable, shut_down, swap_boot,
    swap_extents, thaw,
};
pub use first_thread::end_first_thread;
pub use fork::{be_real_time, eat_in_group, idle_child, in_child};
pub use fuse::{bind_late, pass_through};
pub use impostor::{Deed, Impostor, Lie};
pub use lease::lease;
pub use link::{
    attach_program, attach_to_group, deny_devices, detach_link, link_address_program, link_by_id,
    link_program, map_by_id, open_pin, program_by_id, query_devices, replace_descriptor,
    sysctl_program, update_address_link, update_link,
};
pub use nvme::{nvme_submit, nvme_uring, nvme_write};
pub use option::set_option;
pub use program::{
    LateProbe, Replacement, SignalKfuncs, address_program, link_session, link_to_function,
    load_with_attributes, modify_return_program, open_program, override_verdict, read_by_helper,
    read_by_kfunc, session_program, signal_by_kfunc,
};
pub use surroundings::{Surroundings, fake_pivot_root, surround};
pub use tun::{set_tun_type, tun};
pub use ublk::{add_ublk, serve_ublk, start_ublk};
pub use unspec::send_to_unspec;
pub use uring::{
    RegisteredFile, Uring, uring_connect, uring_discard, uring_open, uring_send, uring_write,
};
pub use word::write_word;
