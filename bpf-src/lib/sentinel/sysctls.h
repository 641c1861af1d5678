/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sysctls that disable hooks, or give access to the kernel. */
#ifndef IRONCLAD_LIB_SENTINEL_SYSCTLS_H
#define IRONCLAD_LIB_SENTINEL_SYSCTLS_H

#include "../base.h"

enum { IC_SYSCTL_NAME = 64 };

union ic_sysctl_name {
	char text[IC_SYSCTL_NAME];
	__u64 word[IC_SYSCTL_NAME / 8];
};

struct ic_sysctl {
	union ic_sysctl_name whole;
	union ic_sysctl_name tail; /* its last directory and its name */
};

#define IC_SYSCTL(above, tail)  \
	{                       \
		{ above tail }, \
		{               \
			tail    \
		}               \
	}
static const struct ic_sysctl ic_sysctls[] = {
	/* 0: on Linux 6.1 to 6.18, no hook of BPF LSM is called any more, and all stay attached. */
	IC_SYSCTL("", "kernel/ftrace_enabled"),
	IC_SYSCTL("", "kernel/unprivileged_bpf_disabled"),
	IC_SYSCTL("", "kernel/kptr_restrict"),
	IC_SYSCTL("", "kernel/sysrq"),
	/* The process that the kernel sends SIGINT at Ctrl-Alt-Delete, past every hook. */
	IC_SYSCTL("", "kernel/cad_pid"),
	/* Programs that the kernel starts as root. */
	IC_SYSCTL("", "kernel/modprobe"),
	IC_SYSCTL("", "kernel/hotplug"),
	IC_SYSCTL("", "kernel/core_pattern"),
	IC_SYSCTL("kernel/", "usermodehelper/bset"),
	IC_SYSCTL("kernel/", "usermodehelper/inheritable"),
	IC_SYSCTL("net/", "core/bpf_jit_enable"),
	IC_SYSCTL("net/", "core/bpf_jit_harden"),
	IC_SYSCTL("net/", "core/bpf_jit_kallsyms"),
	IC_SYSCTL("", "debug/kprobes-optimization"),
	/* The share of time of real-time processes: with -1 they leave the agent none. */
	IC_SYSCTL("", "kernel/sched_rt_runtime_us"),
	IC_SYSCTL("", "kernel/sched_rt_period_us"),
	/* How long an open(2) waits for the lease of another process. */
	IC_SYSCTL("", "fs/lease-break-time"),
	/* 0: no process waits by epoll any more, as agents do that embed Ironclad. */
	IC_SYSCTL("fs/", "epoll/max_user_watches"),
};
#undef IC_SYSCTL
#define IC_SYSCTLS (sizeof(ic_sysctls) / sizeof(*ic_sysctls))

IC_INLINE bool ic_is_sysctl(const union ic_sysctl_name *one, const union ic_sysctl_name *other)
{
	__u32 i;

	for (i = 0; i < IC_SYSCTL_NAME / 8; i++) {
		if (one->word[i] != other->word[i])
			return false;
	}
	return true;
}

#endif
