/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Keeps sysctls that switch hooks off, also from whoever has opened them before. At the root of the
 * control groups, so that it sees every process, on every mount of procfs.
 */
#include "../lib/sentinel_state.h"
#include "../lib/sysctls.h"

/* Programs here may not ask who it is: while Sentinel is armed, nobody writes these. */
SEC("cgroup/sysctl")
int ic_sysctl(struct bpf_sysctl *ctx)
{
	union ic_sysctl_name name = {};
	__u32 i;

	if (!ctx->write ||
	    (!ic_is_armed() && IC_READ_ONCE(ic_sentinel.canary_hook) != IC_HOOK_SYSCTL))
		return 1;
	if (bpf_sysctl_get_name(ctx, name.text, sizeof(name), 0) < 0)
		return 1;
	for (i = 0; i < IC_SYSCTLS; i++) {
		if (ic_is_sysctl(&name, &ic_sysctls[i].whole))
			return 0;
	}
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
