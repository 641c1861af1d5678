/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Protects sysctls that disable hooks, also from pre-opened descriptors. Attached to the root
 * cgroup, so that it sees every process, on every mount of procfs.
 */
#ifndef IRONCLAD_PROGS_SENTINEL_SYSCTL_H
#define IRONCLAD_PROGS_SENTINEL_SYSCTL_H

#include "../../lib/sentinel/alarm.h"
#include "../../lib/sentinel/sysctls.h"

/* Whether the caller is the agent's own thread, which verifies the program and makes no alarm. */
IC_INLINE bool ic_is_sysctl_canary(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return IC_READ_ONCE(ic_sentinel.canary_hook) == IC_HOOK_SYSCTL &&
	       (__u32)BPF_CORE_READ(task, pid) == IC_READ_ONCE(ic_sentinel.canary);
}

IC_INLINE void ic_sysctl_alarm(const union ic_sysctl_name *name)
{
	const struct ic_attempt attempt = {
		.hook = IC_HOOK_SYSCTL,
		.op = IC_FILE_WRITE,
		.verdict = IC_SENTINEL_DENIED,
	};
	struct ic_sentinel_event *ev = ic_alarm_begin(&attempt);

	if (!ev)
		return;
	/* The whole name with its slashes, relative to the directory of sysctls. */
	__builtin_memcpy(ev->path, name->text, sizeof(name->text));
	ev->path_len = sizeof(name->text);
	ev->path_cut = 1;
	ic_alarm_end(ev);
}

/* While Sentinel is armed, no process writes these. */
SEC("cgroup/sysctl")
int ic_sysctl(struct bpf_sysctl *ctx)
{
	union ic_sysctl_name name = {};
	bool is_canary;
	__u32 i;

	if (!ctx->write)
		return 1;
	is_canary = ic_is_sysctl_canary();
	if (!is_canary && !ic_is_armed())
		return 1;
	if (bpf_sysctl_get_name(ctx, name.text, sizeof(name), 0) < 0)
		return 1;
	for (i = 0; i < IC_SYSCTLS; i++) {
		if (!ic_is_sysctl(&name, &ic_sysctls[i].whole))
			continue;
		if (!is_canary)
			ic_sysctl_alarm(&name);
		return 0;
	}
	return 1;
}

#endif
