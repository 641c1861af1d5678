/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The gate: trust marks, access to programs and maps, and loading of programs. Attached before all
 * other hooks: a program of BPF LSM, or one that changes the results of functions, could disable
 * the rest.
 */
#ifndef IRONCLAD_PROGS_SENTINEL_GATE_H
#define IRONCLAD_PROGS_SENTINEL_GATE_H

#include "../../lib/sentinel/calls.h"
#include "../../lib/sentinel/cgroupfs.h"
#include "../../lib/sentinel/dir_rename.h"

/* Secrets that are valid for a mark, each once. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_MARKS);
	__type(key, struct ic_secret_key);
	__type(value, struct ic_secret_val);
} ic_secrets SEC(".maps");

/* Maps and programs of trusted processes, by their addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_OBJECTS);
	__type(key, __u64);
	__type(value, __u32);
} ic_objects SEC(".maps");

/* Links, by id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_LINKS);
	__type(key, __u32);
	__type(value, __u32);
} ic_links SEC(".maps");

/* The beginning of union bpf_attr (include/uapi/linux/bpf.h) of BPF_PROG_LOAD. */
struct ic_attr_load {
	__u32 prog_type;
	__u32 insn_cnt;
	__u64 insns, license;
	__u32 log_level, log_size;
	__u64 log_buf;
	__u32 kern_version, prog_flags;
	char prog_name[16];
	__u32 prog_ifindex;
	__u32 expected_attach_type;
};

/*
 * Of BPF_LINK_CREATE and BPF_PROG_ATTACH, which have program and target in a different order, and of
 * BPF_LINK_UPDATE, which has a link and a program.
 */
struct ic_attr_link {
	__u32 prog_fd, target;
	__u32 attach_type;
	__u32 flags;
	__u32 function; /* of BPF_LINK_CREATE, the target's function in BTF, or a relative link */
};

enum { IC_ENOSPC = 28 };

/* An object without room would be open to every process: its maker gets an error instead. */
IC_INLINE int ic_track_object(__u64 address, __u32 kind)
{
	if (!bpf_map_update_elem(&ic_objects, &address, &kind, BPF_ANY))
		return 0;
	ic_count_loss(IC_LOSS_MAP);
	return -IC_ENOSPC;
}

IC_INLINE bool ic_is_adopting(void)
{
	__u32 tid = IC_READ_ONCE(ic_sentinel.adopting);

	return tid && (__u32)bpf_get_current_pid_tgid() == tid && ic_is_trusted();
}

/*
 * Whether one of the programs that have no descriptor yet is refused, and the table had no room for
 * it: then each is refused.
 */
IC_INLINE bool ic_are_programs_refused(void)
{
	return IC_READ_ONCE(ic_sentinel.refuse) & IC_REFUSE_PROGRAMS && ic_is_armed() &&
	       !ic_is_trusted() && !ic_has_exemption(IC_MAY_LOAD);
}

/* Checks a new descriptor of a map or program, of any mode: a loaded program can write by any. */
IC_INLINE int ic_check_object(__u8 hook, __u64 address, __u32 kind, __u32 id)
{
	const __u32 *found;

	if (ic_is_canary(hook))
		return -IC_SENTINEL_ECANARY;
	if (ic_is_adopting())
		return ic_track_object(address, kind);
	/* Armed or not: a descriptor that a process has once remains usable. */
	found = bpf_map_lookup_elem(&ic_objects, &address);
	if (!found)
		return kind == IC_OBJECT_PROG && ic_are_programs_refused()
			       ? ic_refuse(hook, id, kind)
			       : 0;
	/* Reported where its calls were checked. */
	if (*found == IC_OBJECT_REFUSED)
		return -IC_EPERM;
	if (ic_is_trusted())
		return 0;
	return ic_refuse(hook, id, kind);
}

SEC("lsm/bpf_map")
int BPF_PROG(ic_bpf_map, struct bpf_map *map)
{
	return ic_check_object(IC_HOOK_BPF_MAP, (__u64)map, IC_OBJECT_MAP, BPF_CORE_READ(map, id));
}

SEC("lsm/bpf_prog")
int BPF_PROG(ic_bpf_prog, struct bpf_prog *prog)
{
	struct bpf_prog_aux *aux = BPF_CORE_READ(prog, aux);

	return ic_check_object(IC_HOOK_BPF_PROG, (__u64)aux, IC_OBJECT_PROG,
			       BPF_CORE_READ(aux, id));
}

/*
 * Tracks objects of trusted processes from their creation, before any process can have a
 * descriptor.
 */
IC_INLINE int ic_object_created(__u64 address, __u32 kind)
{
	return ic_is_trusted() ? ic_track_object(address, kind) : 0;
}

IC_INLINE int ic_object_freed(__u64 address)
{
	bpf_map_delete_elem(&ic_objects, &address);
	return 0;
}

/* The names of these hooks before Linux 6.9 and since. */
SEC("?lsm/bpf_map_alloc_security")
int BPF_PROG(ic_map_created_5_10, struct bpf_map *map)
{
	return ic_object_created((__u64)map, IC_OBJECT_MAP);
}

SEC("?lsm/bpf_map_create")
int BPF_PROG(ic_map_created, struct bpf_map *map)
{
	return ic_object_created((__u64)map, IC_OBJECT_MAP);
}

SEC("?lsm/bpf_map_free_security")
int BPF_PROG(ic_map_freed_5_10, struct bpf_map *map)
{
	return ic_object_freed((__u64)map);
}

SEC("?lsm/bpf_map_free")
int BPF_PROG(ic_map_freed, struct bpf_map *map)
{
	return ic_object_freed((__u64)map);
}

SEC("?lsm/bpf_prog_alloc_security")
int BPF_PROG(ic_prog_created_5_10, struct bpf_prog_aux *aux)
{
	return ic_object_created((__u64)aux, IC_OBJECT_PROG);
}

/* The kernel has copied the instructions. */
SEC("?lsm/bpf_prog_load")
int BPF_PROG(ic_prog_created, struct bpf_prog *prog)
{
	if (ic_is_canary(IC_HOOK_BPF_PROG_LOAD))
		return -IC_SENTINEL_ECANARY;
	if (ic_check_calls(prog))
		return -IC_EPERM;
	return ic_object_created((__u64)BPF_CORE_READ(prog, aux), IC_OBJECT_PROG);
}

/*
 * Before Linux 6.9 the hook is called without the instructions. The verifier calls this function
 * first, and ic_bpf_prog denies the descriptor.
 */
SEC("?fentry/bpf_prog_calc_tag")
int ic_prog_calls(__u64 *ctx)
{
	struct bpf_prog *prog = (void *)ctx[0];

	if (!ic_is_canary(IC_HOOK_BPF_PROG_LOAD) && !ic_check_calls(prog))
		return 0;
	/* Nothing but the agent's start changes the word otherwise. */
	if (ic_track_object((__u64)BPF_CORE_READ(prog, aux), IC_OBJECT_REFUSED))
		ic_sentinel.refuse |= IC_REFUSE_PROGRAMS;
	return 0;
}

SEC("?lsm/bpf_prog_free_security")
int BPF_PROG(ic_prog_freed_5_10, struct bpf_prog_aux *aux)
{
	return ic_object_freed((__u64)aux);
}

SEC("?lsm/bpf_prog_free")
int BPF_PROG(ic_prog_freed, struct bpf_prog *prog)
{
	return ic_object_freed((__u64)BPF_CORE_READ(prog, aux));
}

/* Checks the loading of a program, or the attaching of one that was loaded before, by its type. */
IC_INLINE int ic_gate(__u8 hook, __u32 type, __u32 cmd)
{
	__u64 bit = 1ULL << (type & 63);
	struct ic_attempt attempt = { .hook = hook, .target = type, .detail = cmd };

	if (ic_is_trusted())
		return 0;
	if (ic_sentinel.gate & bit && !ic_has_exemption(IC_MAY_LOAD))
		return ic_refuse(hook, type, cmd);
	if (ic_sentinel.gate_log & bit) {
		attempt.verdict = IC_SENTINEL_LOGGED;
		ic_alarm(&attempt);
	}
	return 0;
}

/*
 * The program type of an attach type: trampolines, probes, and hooks that Sentinel attaches to. 0
 * for those of packets, sockets and devices. An attach type that this source does not know is newer
 * than it, and counts as one of trampolines.
 */
IC_INLINE __u32 ic_gate_type(__u32 attach_type)
{
	if (attach_type == BPF_LSM_MAC || attach_type == BPF_LSM_CGROUP)
		return BPF_PROG_TYPE_LSM;
	if (attach_type == BPF_STRUCT_OPS)
		return BPF_PROG_TYPE_STRUCT_OPS;
	if (attach_type == BPF_PERF_EVENT || attach_type == BPF_TRACE_KPROBE_MULTI ||
	    attach_type == BPF_TRACE_UPROBE_MULTI || attach_type == BPF_TRACE_KPROBE_SESSION ||
	    attach_type == BPF_TRACE_UPROBE_SESSION)
		return BPF_PROG_TYPE_KPROBE;
	/*
	 * A cgroup has room for 64 of them: a process that takes all keeps a successor from
	 * attaching.
	 */
	if (attach_type == BPF_CGROUP_SYSCTL)
		return BPF_PROG_TYPE_CGROUP_SYSCTL;
	if (attach_type > BPF_NETKIT_PEER ||
	    (attach_type >= BPF_TRACE_RAW_TP && attach_type <= BPF_TRACE_ITER))
		return BPF_PROG_TYPE_TRACING;
	return 0;
}

enum {
	IC_FD_NONE,
	IC_FD_FOUND,
	/* Another thread or process could replace it after the check. */
	IC_FD_SHARED,
};

/* The open file of a descriptor, where threads or processes do not share their descriptors. */
IC_INLINE int ic_file_of_fd(__u32 fd, struct file **file)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct files_struct *files = BPF_CORE_READ(task, files);
	struct fdtable *table = BPF_CORE_READ(files, fdt);
	struct file **files_at = BPF_CORE_READ(table, fd);

	*file = NULL;
	if (BPF_CORE_READ(files, count.counter) > 1)
		return IC_FD_SHARED;
	if (fd >= BPF_CORE_READ(table, max_fds))
		return IC_FD_NONE;
	bpf_probe_read_kernel(file, sizeof(*file), files_at + fd);
	return *file ? IC_FD_FOUND : IC_FD_NONE;
}

/*
 * Whether a link may be one of an freplace program, whose attach type the kernel does not check:
 * these have as target either none, which is that of the load, or a program and a function. Links
 * at cgroups and interfaces have both, too, where they name a place among others.
 */
IC_INLINE bool ic_is_freplace(const struct ic_attr_link *link)
{
	struct bpf_prog *prog;
	struct file *file;
	int found;

	if (!link->target != !link->function)
		return false;
	if (!link->target || !link->attach_type)
		return true;
	found = ic_file_of_fd(link->prog_fd, &file);
	if (found != IC_FD_FOUND)
		return found == IC_FD_SHARED;
	prog = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(prog, type) == BPF_PROG_TYPE_EXT;
}

/*
 * Whether a descriptor is a link of a protected program. Where threads or processes share their
 * descriptors, each counts as protected.
 */
IC_INLINE bool ic_is_link_protected(__u32 fd)
{
	struct bpf_link *link;
	struct file *file;
	int found = ic_file_of_fd(fd, &file);
	__u64 aux;

	if (found != IC_FD_FOUND)
		return found == IC_FD_SHARED;
	link = BPF_CORE_READ(file, private_data);
	aux = (__u64)BPF_CORE_READ(link, prog, aux);
	return aux && bpf_map_lookup_elem(&ic_objects, &aux);
}

/* Whether programs at a place of attachment may rewrite an address that Shield checks there. */
IC_INLINE bool ic_is_address_type(__u32 attach_type)
{
	return (attach_type >= BPF_CGROUP_INET4_BIND && attach_type <= BPF_CGROUP_INET6_CONNECT) ||
	       attach_type == BPF_CGROUP_UDP4_SENDMSG || attach_type == BPF_CGROUP_UDP6_SENDMSG;
}

/*
 * Whether a descriptor is a program that may rewrite an address behind Shield's back, whenever it
 * was loaded. Where threads or processes share their descriptors, each counts as one.
 */
IC_INLINE bool ic_is_rewriter(__u32 fd)
{
	struct bpf_prog *prog;
	struct file *file;
	int found;

	if (!(IC_READ_ONCE(ic_sentinel.refuse) & IC_REFUSE_REWRITES) || ic_is_trusted() ||
	    ic_has_exemption(IC_MAY_LOAD))
		return false;
	found = ic_file_of_fd(fd, &file);
	if (found != IC_FD_FOUND)
		return found == IC_FD_SHARED;
	prog = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(prog, type) == BPF_PROG_TYPE_CGROUP_SOCK_ADDR &&
	       ic_is_address_type(BPF_CORE_READ(prog, expected_attach_type)) &&
	       ic_harm_of(ic_address(prog), true);
}

/*
 * Whether the caller may not ask which programs are attached to a cgroup: the kernel answers with the
 * lock of all cgroups held, into memory that may never come. Container runtimes ask. Interfaces have
 * another lock.
 */
static __noinline bool ic_is_query_refused(__u32 attach_type)
{
	if (attach_type == BPF_TCX_INGRESS || attach_type == BPF_TCX_EGRESS ||
	    attach_type == BPF_NETKIT_PRIMARY || attach_type == BPF_NETKIT_PEER)
		return false;
	return ic_sentinel.gate & 1ULL << BPF_PROG_TYPE_CGROUP_SYSCTL && !ic_is_group_manager() &&
	       !ic_has_exemption(IC_MAY_LOAD);
}

/* `attr` is the kernel's own copy: no process can change it after this. */
SEC("lsm/bpf")
int BPF_PROG(ic_bpf, int cmd, const void *attr)
{
	struct ic_attr_load load;
	struct ic_attr_link link;
	__u32 id = 0, type;

	if (ic_is_canary(IC_HOOK_BPF))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed())
		return 0;
	/* On Linux 7.3 a command may have this flag. */
	cmd &= ~BPF_COMMON_ATTRS;
	switch (cmd) {
	case BPF_PROG_LOAD:
		bpf_probe_read_kernel(&load, sizeof(load), attr);
		return ic_gate(IC_HOOK_BPF, load.prog_type, cmd);
	case BPF_RAW_TRACEPOINT_OPEN:
		return ic_gate(IC_HOOK_BPF, BPF_PROG_TYPE_RAW_TRACEPOINT, cmd);
	case BPF_LINK_CREATE:
	case BPF_PROG_ATTACH:
		bpf_probe_read_kernel(&link, sizeof(link), attr);
		type = ic_gate_type(link.attach_type);
		if (type && ic_gate(IC_HOOK_BPF, type, cmd))
			return -IC_EPERM;
		if (ic_is_address_type(link.attach_type) &&
		    ic_is_rewriter(cmd == BPF_LINK_CREATE ? link.prog_fd : link.target))
			return ic_refuse(IC_HOOK_BPF, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, cmd);
		return cmd == BPF_LINK_CREATE && ic_is_freplace(&link)
			       ? ic_gate(IC_HOOK_BPF, BPF_PROG_TYPE_EXT, cmd)
			       : 0;
	case BPF_LINK_UPDATE:
	case BPF_LINK_DETACH:
		bpf_probe_read_kernel(&link, sizeof(link), attr);
		id = link.prog_fd;
		if (ic_is_link_protected(id) && !ic_is_trusted() && !ic_has_exemption(IC_MAY_LOAD))
			return ic_refuse(IC_HOOK_BPF, id, cmd);
		/* In the place of the target, there is the descriptor of the new program. */
		return cmd == BPF_LINK_UPDATE && ic_is_rewriter(link.target)
			       ? ic_refuse(IC_HOOK_BPF, id, cmd)
			       : 0;
	case BPF_PROG_QUERY:
		bpf_probe_read_kernel(&link, sizeof(link), attr);
		/* In the place of the target, there is the attach type. */
		return ic_is_query_refused(link.target) ? ic_refuse(IC_HOOK_BPF, 0, cmd) : 0;
	case BPF_LINK_GET_FD_BY_ID:
		bpf_probe_read_kernel(&id, sizeof(id), attr);
		if (!bpf_map_lookup_elem(&ic_links, &id) || ic_is_trusted())
			return 0;
		return ic_refuse(IC_HOOK_BPF, id, cmd);
	}
	return 0;
}

/*
 * A process presents a secret in the arguments of prctl(2), which the kernel has in registers: no
 * other process can change them. The result is the kernel's own: EINVAL for an unknown option.
 */
SEC("lsm/task_prctl")
int BPF_PROG(ic_task_prctl, int option, unsigned long one, unsigned long two, unsigned long three,
	     unsigned long four)
{
	struct ic_secret_key key = { .word = { one, two, three, four } };
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct ic_attempt attempt = {
		.hook = IC_HOOK_TASK_PRCTL,
		.target = tgid,
		.verdict = IC_SENTINEL_REFUSED,
	};
	const struct ic_process *process;
	const struct ic_secret_val *secret;
	struct ic_secret_val found = {};
	bool is_it;

	if (ic_is_canary(IC_HOOK_TASK_PRCTL))
		return -IC_SENTINEL_ECANARY;
	if (option != IC_SENTINEL_HELLO)
		return 0;
	secret = bpf_map_lookup_elem(&ic_secrets, &key);
	if (!secret)
		goto out;
	found = *secret;
	process = ic_caller(false);
	is_it = !found.exe.ino || (process && process->exe.ino == found.exe.ino &&
				   process->exe.dev == found.exe.dev &&
				   process->exe.generation == found.exe.generation);
	/* A traced process acts for its tracer. */
	if (!is_it || BPF_CORE_READ(task, ptrace))
		goto out;
	if (found.flags & IC_SECRET_RESTART) {
		/* Its bearer replaces it with another one, and removes it then. */
		if (!(ic_mark() & (IC_MARK_CANDIDATE | IC_MARK_TRUSTED)))
			goto out;
	} else if (bpf_map_delete_elem(&ic_secrets, &key)) {
		/* Of two processes that present it at once, one succeeds. */
		goto out;
	}
	if (ic_mark_set(found.mark)) {
		attempt.verdict = IC_SENTINEL_GRANTED;
		ic_environment_record(task);
	}
out:
	ic_alarm(&attempt);
	return 0;
}

/* Past this, the process is another program. */
SEC("lsm/bprm_committing_creds")
int BPF_PROG(ic_exec_ends)
{
	ic_mark_remove();
	return 0;
}

/*
 * A child shares its parent's memory and descriptors until its execve(2), and is protected as the
 * parent is.
 */
SEC("tp_btf/sched_process_fork")
int ic_forked(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	__u32 from = parent->tgid, tgid = child->tgid;
	struct ic_mark mark = { .flags = IC_MARK_CHILD };

	if (from == tgid || !ic_mark_of(parent))
		return 0;
	mark.start_ns = BPF_CORE_READ(child, start_boottime);
	if (bpf_map_update_elem(&ic_marks, &tgid, &mark, BPF_ANY))
		ic_count_loss(IC_LOSS_MAP);
	return 0;
}

/*
 * The mark is removed with the last reference to the process: until then, its descriptors may
 * exist. The copy of a task whose fork(2) failed is freed, too: it has the numbers of its parent, and
 * has not exited.
 */
SEC("lsm/task_free")
int BPF_PROG(ic_task_free, struct task_struct *task)
{
	__u32 tgid = task->tgid;
	const struct ic_mark *mark;

	ic_dir_rename_end((__u64)task);
	if (tgid != (__u32)task->pid || !task->exit_state)
		return 0;
	mark = bpf_map_lookup_elem(&ic_marks, &tgid);
	if (mark && mark->start_ns == BPF_CORE_READ(task, start_boottime))
		bpf_map_delete_elem(&ic_marks, &tgid);
	return 0;
}

#endif
