//! Kernel functions (kfuncs) that a program of any type may call.

/// Kernel functions that act on nothing but the program's own objects, its packet and its socket. An
/// [`Allowlist`](super::Allowlist) can permit these alone, and Sentinel refuses programs of other
/// processes that call another.
///
/// Not among them: functions that find, signal or schedule work in tasks (`bpf_task_from_pid`,
/// `bpf_send_signal_task`, `bpf_task_work_schedule_*`), that read memory by address (`bpf_rdonly_cast`,
/// `bpf_copy_from_user_*`, `bpf_probe_read_*`, and `bpf_str*`, whose arguments the verifier does not
/// check), and those of files, keys, io_uring and the kernel's own sockets.
pub const HARMLESS_KFUNCS: &[&str] = &[
    "bpf_arena_alloc_pages",
    "bpf_arena_free_pages",
    "bpf_arena_reserve_pages",
    "bpf_cast_to_kern_ctx",
    "bpf_cgroup_acquire",
    "bpf_cgroup_ancestor",
    "bpf_cgroup_from_id",
    "bpf_cgroup_release",
    "bpf_cpumask_acquire",
    "bpf_cpumask_and",
    "bpf_cpumask_any",
    "bpf_cpumask_any_and",
    "bpf_cpumask_any_and_distribute",
    "bpf_cpumask_any_distribute",
    "bpf_cpumask_clear",
    "bpf_cpumask_clear_cpu",
    "bpf_cpumask_copy",
    "bpf_cpumask_create",
    "bpf_cpumask_empty",
    "bpf_cpumask_equal",
    "bpf_cpumask_first",
    "bpf_cpumask_first_and",
    "bpf_cpumask_first_zero",
    "bpf_cpumask_full",
    "bpf_cpumask_intersects",
    "bpf_cpumask_or",
    "bpf_cpumask_populate",
    "bpf_cpumask_release",
    "bpf_cpumask_set_cpu",
    "bpf_cpumask_setall",
    "bpf_cpumask_subset",
    "bpf_cpumask_test_and_clear_cpu",
    "bpf_cpumask_test_and_set_cpu",
    "bpf_cpumask_test_cpu",
    "bpf_cpumask_weight",
    "bpf_cpumask_xor",
    "bpf_crypto_ctx_acquire",
    "bpf_crypto_ctx_release",
    "bpf_crypto_decrypt",
    "bpf_crypto_encrypt",
    "bpf_ct_change_status",
    "bpf_ct_change_timeout",
    "bpf_ct_insert_entry",
    "bpf_ct_release",
    "bpf_ct_set_nat_info",
    "bpf_ct_set_status",
    "bpf_ct_set_timeout",
    "bpf_dynptr_adjust",
    "bpf_dynptr_clone",
    "bpf_dynptr_copy",
    "bpf_dynptr_from_skb",
    "bpf_dynptr_from_skb_meta",
    "bpf_dynptr_from_xdp",
    "bpf_dynptr_is_null",
    "bpf_dynptr_is_rdonly",
    "bpf_dynptr_memset",
    "bpf_dynptr_size",
    "bpf_dynptr_slice",
    "bpf_dynptr_slice_rdwr",
    "bpf_icmp_send",
    "bpf_iter_bits_destroy",
    "bpf_iter_bits_new",
    "bpf_iter_bits_next",
    "bpf_iter_num_destroy",
    "bpf_iter_num_new",
    "bpf_iter_num_next",
    "bpf_list_add",
    "bpf_list_back",
    "bpf_list_del",
    "bpf_list_empty",
    "bpf_list_front",
    "bpf_list_is_first",
    "bpf_list_is_last",
    "bpf_list_pop_back",
    "bpf_list_pop_front",
    "bpf_list_push_back",
    "bpf_list_push_back_impl",
    "bpf_list_push_front",
    "bpf_list_push_front_impl",
    "bpf_local_irq_restore",
    "bpf_local_irq_save",
    "bpf_map_sum_elem_count",
    "bpf_obj_drop",
    "bpf_obj_drop_impl",
    "bpf_obj_new",
    "bpf_obj_new_impl",
    "bpf_percpu_obj_drop",
    "bpf_percpu_obj_drop_impl",
    "bpf_percpu_obj_new",
    "bpf_percpu_obj_new_impl",
    "bpf_preempt_disable",
    "bpf_preempt_enable",
    "bpf_rbtree_add",
    "bpf_rbtree_add_impl",
    "bpf_rbtree_first",
    "bpf_rbtree_left",
    "bpf_rbtree_remove",
    "bpf_rbtree_right",
    "bpf_rbtree_root",
    "bpf_rcu_read_lock",
    "bpf_rcu_read_unlock",
    "bpf_refcount_acquire",
    "bpf_refcount_acquire_impl",
    "bpf_res_spin_lock",
    "bpf_res_spin_lock_irqsave",
    "bpf_res_spin_unlock",
    "bpf_res_spin_unlock_irqrestore",
    "bpf_sk_assign_tcp_reqsk",
    "bpf_skb_ct_alloc",
    "bpf_skb_ct_lookup",
    "bpf_skb_get_hash",
    "bpf_sock_addr_set_sun_path",
    "bpf_sock_ops_enable_tx_tstamp",
    "bpf_stream_print_stack",
    "bpf_throw",
    "bpf_timer_cancel_async",
    "bpf_wq_init",
    "bpf_wq_set_callback",
    "bpf_wq_set_callback_impl",
    "bpf_wq_start",
    "bpf_xdp_ct_alloc",
    "bpf_xdp_ct_lookup",
    "bpf_xdp_flow_lookup",
    "bpf_xdp_get_xfrm_state",
    "bpf_xdp_metadata_rx_hash",
    "bpf_xdp_metadata_rx_timestamp",
    "bpf_xdp_metadata_rx_vlan_tag",
    "bpf_xdp_pull_data",
    "bpf_xdp_xfrm_state_release",
];

/// Whether an allowlist can permit a kernel function.
pub(crate) fn is_harmless(name: &str) -> bool {
    HARMLESS_KFUNCS.binary_search(&name).is_ok()
}

/// What a function does to the host.
pub(super) fn acts_on_host(name: &str) -> Option<&'static str> {
    match name {
        "crash_kexec" => Some("crashes the host"),
        "bpf_send_signal_task" => Some("sends signals, and so kills processes"),
        _ => None,
    }
}

/// Why no allowlist can permit a function.
pub(super) fn reason_of_kfunc(name: &str) -> Option<&'static str> {
    let unknown = "is not known to act on the program's own objects alone";
    (!is_harmless(name)).then(|| acts_on_host(name).unwrap_or(unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_what_acts_on_others_is_not_among_them() {
        assert!(HARMLESS_KFUNCS.is_sorted());
        for name in [
            "crash_kexec",
            "bpf_send_signal_task",
            "bpf_task_from_pid",
            "bpf_task_from_vpid",
            "bpf_copy_from_user_task_str",
            "bpf_rdonly_cast",
            "bpf_strlen",
            "bpf_probe_read_user_dynptr",
            "bpf_get_task_exe_file",
            "bpf_sock_destroy",
            "of_a_newer_kernel",
            "",
        ] {
            assert!(reason_of_kfunc(name).is_some(), "{name}");
        }
    }
}
