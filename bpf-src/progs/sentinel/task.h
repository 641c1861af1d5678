/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Protects trusted processes from signals, tracing and resource limits by other processes. */
#ifndef IRONCLAD_PROGS_SENTINEL_TASK_H
#define IRONCLAD_PROGS_SENTINEL_TASK_H

#include "../../lib/sentinel/alarm.h"
#include "../../lib/sentinel/cgroupfs.h"

/* Whether the task is protected from the caller: trusted, or about to be. */
IC_INLINE bool ic_is_protected_process(struct task_struct *task)
{
	return ic_is_armed() && ic_mark_of(task) && !ic_is_same_process(task) && !ic_is_trusted();
}

IC_INLINE int ic_check_task(__u8 hook, struct task_struct *task, __u32 detail, __u32 may)
{
	if (ic_is_canary(hook))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_protected_process(task) || ic_has_exemption(may))
		return 0;
	return ic_refuse(hook, BPF_CORE_READ(task, tgid), detail);
}

/* A break-glass token allows other processes to end the agent for a while; signals are reported. */
IC_INLINE bool ic_is_break_glass_open(struct task_struct *task, int sig)
{
	__u64 until = IC_READ_ONCE(ic_sentinel.open_until_ns);
	const struct ic_attempt attempt = {
		.hook = IC_HOOK_TASK_KILL,
		.target = BPF_CORE_READ(task, tgid),
		.detail = sig,
		.verdict = IC_SENTINEL_LOGGED,
	};

	if (!until || bpf_ktime_get_boot_ns() >= until)
		return false;
	if (ic_is_protected_process(task))
		ic_alarm(&attempt);
	return true;
}

/*
 * Whether a signal stops PID 1 for ever: systemd(1) takes those of faults for one, also where another
 * process sends them, and then starts no successor.
 */
static __noinline bool ic_is_crash_of_init(struct task_struct *task, int sig)
{
	/* SIGQUIT, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV */
	const __u32 crashes = 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11;

	return BPF_CORE_READ(task, tgid) == IC_INIT && sig > 0 && sig < 32 &&
	       crashes >> (sig & 31) & 1 && ic_is_armed() && !ic_is_same_process(task) &&
	       !ic_is_trusted() && !ic_has_exemption(IC_MAY_KILL);
}

/* Signal 0 only checks whether the process exists. */
SEC("lsm/task_kill")
int BPF_PROG(ic_task_kill, struct task_struct *task, void *info, int sig)
{
	if (ic_is_crash_of_init(task, sig))
		return ic_refuse(IC_HOOK_TASK_KILL, IC_INIT, sig);
	if (!ic_is_canary(IC_HOOK_TASK_KILL) && (!sig || ic_is_break_glass_open(task, sig)))
		return 0;
	return ic_check_task(IC_HOOK_TASK_KILL, task, sig, IC_MAY_KILL);
}

enum {
	IC_PTRACE_MODE_READ = 1, /* include/linux/ptrace.h */
	IC_PTRACE_MODE_ATTACH = 2,
	IC_PTRACE_MODE_NOAUDIT = 4,
	IC_PTRACE_MODE_FSCREDS = 8,
};

/*
 * Whether a denial needs no alarm, because monitors cause it: parts of /proc/PID/stat, of which the
 * kernel shows zeroes instead (ps, top), and the target of a link, wchan and io (pidof, journald).
 * A process that opens what a link leads to walks a path.
 */
IC_INLINE bool ic_is_read_quiet(__u32 mode)
{
	if (mode & IC_PTRACE_MODE_ATTACH)
		return false;
	if (mode & IC_PTRACE_MODE_NOAUDIT)
		return true;
	return mode == (IC_PTRACE_MODE_READ | IC_PTRACE_MODE_FSCREDS) && !ic_is_at_path();
}

/* PID 1 may mount, and move the agent, and so may its tracer. Reading is allowed. */
IC_INLINE bool ic_is_manager_traced(struct task_struct *task, __u32 mode)
{
	return mode & IC_PTRACE_MODE_ATTACH && ic_is_armed() && ic_is_manager_of(task, true) &&
	       !ic_is_same_process(task) && !ic_is_trusted() && !ic_has_exemption(IC_MAY_TRACE);
}

/* ptrace(2), process_vm_readv(2), pidfd_getfd(2), and /proc/PID/{mem,maps,fd,environ,exe,…}. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(ic_ptrace, struct task_struct *task, unsigned int mode)
{
	if (!ic_is_canary(IC_HOOK_PTRACE_ACCESS_CHECK) && ic_is_manager_traced(task, mode))
		return ic_refuse(IC_HOOK_PTRACE_ACCESS_CHECK, BPF_CORE_READ(task, tgid), mode);
	if (ic_is_read_quiet(mode) && ic_is_protected_process(task) &&
	    !ic_has_exemption(IC_MAY_TRACE))
		return -IC_EPERM;
	return ic_check_task(IC_HOOK_PTRACE_ACCESS_CHECK, task, mode, IC_MAY_TRACE);
}

/*
 * Reports limits and priorities of a kernel thread: one that gets no time holds up what the agent waits
 * for.
 */
static __noinline void ic_report_kernel_thread(struct task_struct *task, __u8 hook, __u32 detail)
{
	const struct ic_attempt attempt = {
		.hook = hook,
		.target = BPF_CORE_READ(task, tgid),
		.detail = detail,
		.verdict = IC_SENTINEL_LOGGED,
	};

	if (BPF_CORE_READ(task, flags) & IC_PF_KTHREAD && ic_is_armed() && !ic_is_trusted() &&
	    !ic_has_exemption(IC_MAY_KILL))
		ic_alarm(&attempt);
}

/* Limits and priorities, which children inherit: PID 1 starts the agent's successor. */
IC_INLINE int ic_check_limits(__u8 hook, struct task_struct *task, __u32 detail)
{
	ic_report_kernel_thread(task, hook, detail);
	if (BPF_CORE_READ(task, tgid) == IC_INIT && ic_is_armed() && !ic_is_same_process(task) &&
	    !ic_is_trusted() && !ic_has_exemption(IC_MAY_KILL))
		return ic_refuse(hook, IC_INIT, detail);
	return ic_check_task(hook, task, detail, IC_MAY_KILL);
}

SEC("lsm/task_setrlimit")
int BPF_PROG(ic_setrlimit, struct task_struct *task, unsigned int resource)
{
	return ic_check_limits(IC_HOOK_TASK_SETRLIMIT, task, resource);
}

/* Policy, priority and processors: sched_setscheduler(2), sched_setaffinity(2), cpuset. */
SEC("lsm/task_setscheduler")
int BPF_PROG(ic_setscheduler, struct task_struct *task)
{
	return ic_check_limits(IC_HOOK_TASK_SETSCHEDULER, task, 0);
}

SEC("lsm/task_setnice")
int BPF_PROG(ic_setnice, struct task_struct *task, int nice)
{
	return ic_check_limits(IC_HOOK_TASK_SETNICE, task, nice);
}

SEC("lsm/task_setioprio")
int BPF_PROG(ic_setioprio, struct task_struct *task, int priority)
{
	return ic_check_limits(IC_HOOK_TASK_SETIOPRIO, task, priority);
}

/* The parent's cgroup is not the child's: a process would leave Shield's cgroup, or enter the agent's. */
SEC("lsm/task_alloc")
int BPF_PROG(ic_clone, struct task_struct *task, unsigned long flags)
{
	if (ic_is_canary(IC_HOOK_TASK_ALLOC))
		return -IC_SENTINEL_ECANARY;
	return ic_is_clone_refused(flags) ? ic_refuse(IC_HOOK_TASK_ALLOC, 0, 0) : 0;
}

/*
 * PID 1 and processes that may move processes move the agent: its cgroups are then protected, and the
 * move is reported. The tracepoint gives the first thread of a process, or the thread that is moved.
 */
SEC("tp_btf/cgroup_attach_task")
int ic_moved(__u64 *ctx)
{
	struct cgroup *cgroup = (void *)ctx[0];
	struct task_struct *task = (void *)ctx[2];
	const struct ic_attempt attempt = {
		.hook = IC_HOOK_CGROUP_ATTACH_TASK,
		.target = task->tgid,
		.detail = BPF_CORE_READ(cgroup, kn, id),
		.verdict = IC_SENTINEL_LOGGED,
	};

	if (!ic_mark_of(task))
		return 0;
	ic_groups_record(cgroup);
	if (ic_is_protected_process(task))
		ic_alarm(&attempt);
	return 0;
}

SEC("lsm/task_movememory")
int BPF_PROG(ic_movememory, struct task_struct *task)
{
	return ic_check_task(IC_HOOK_TASK_MOVEMEMORY, task, 0, IC_MAY_KILL);
}

SEC("lsm/task_setpgid")
int BPF_PROG(ic_setpgid, struct task_struct *task, int group)
{
	return ic_check_task(IC_HOOK_TASK_SETPGID, task, group, IC_MAY_KILL);
}

/* F_SETOWN and F_SETSIG of fcntl(2) make the kernel send any signal, SIGKILL too. */
SEC("lsm/file_send_sigiotask")
int BPF_PROG(ic_sigio, struct task_struct *task, void *owner, int sig)
{
	if (!ic_is_armed() || !ic_mark_of(task))
		return 0;
	return ic_refuse(IC_HOOK_FILE_SEND_SIGIOTASK, BPF_CORE_READ(task, tgid), sig);
}

enum {
	IC_SAMPLE_REGS_USER = 1 << 12, /* include/uapi/linux/perf_event.h */
	IC_SAMPLE_STACK_USER = 1 << 13,
	IC_SAMPLE_REGS_INTR = 1 << 18,
	IC_PERF_TYPE_TRACEPOINT = 2,
};

/*
 * Whether an event traces the system calls of other processes. A tracepoint exposes their
 * arguments, and so the secret that a process is about to present: by samples, and by filters that
 * compare one bit each. A process that presents a secret has no mark yet, and events are inherited:
 * so other processes may not be traced at all.
 */
IC_INLINE bool ic_is_syscall_traced(struct task_struct *task, __u32 type)
{
	return type == IC_PERF_TYPE_TRACEPOINT && !(task && ic_is_same_process(task));
}

/*
 * Whether an event samples registers and stacks of other processes. Children inherit the events of
 * their parents: one of PID 1 would sample the agent's successor.
 */
IC_INLINE bool ic_is_memory_sampled(struct task_struct *task, __u64 sample)
{
	return sample & (IC_SAMPLE_REGS_USER | IC_SAMPLE_STACK_USER | IC_SAMPLE_REGS_INTR) &&
	       !(task && ic_is_same_process(task));
}

/*
 * Whether an event is PID 1's, or of a child that has not called execve(2): its children inherit
 * it, the agent's successor too, to which one with `sigtrap` sends signals.
 */
IC_INLINE bool ic_is_inherited(struct task_struct *task)
{
	return task && ic_is_manager_of(task, true) && !ic_is_same_process(task);
}

/*
 * Refuses to measure trusted processes and PID 1, to sample registers and stacks of other
 * processes, and to place probes in kernel and programs.
 */
SEC("lsm/perf_event_alloc")
int BPF_PROG(ic_perf, struct perf_event *event)
{
	struct task_struct *task = BPF_CORE_READ(event, hw.target);
	__u32 type = BPF_CORE_READ(event, attr.type);
	__u64 sample = BPF_CORE_READ(event, attr.sample_type);

	if (ic_is_canary(IC_HOOK_PERF_EVENT_ALLOC))
		return -IC_SENTINEL_ECANARY;
	if (!ic_is_armed() || !(ic_sentinel.refuse & IC_REFUSE_MEMORY))
		return 0;
	if (!(task && ic_mark_of(task)) && !ic_is_inherited(task) &&
	    !ic_is_memory_sampled(task, sample) && !ic_is_syscall_traced(task, type) &&
	    !(ic_sentinel.probes[0] && type == ic_sentinel.probes[0]) &&
	    !(ic_sentinel.probes[1] && type == ic_sentinel.probes[1]))
		return 0;
	if (ic_is_trusted() || ic_has_exemption(IC_MAY_TRACE))
		return 0;
	return ic_refuse(IC_HOOK_PERF_EVENT_ALLOC, task ? BPF_CORE_READ(task, tgid) : 0, type);
}

#endif
