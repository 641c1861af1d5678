/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The cgroup ancestor of the process at a given depth. */
#ifndef IRONCLAD_LIB_PROCESS_CGROUP_ANCESTOR_H
#define IRONCLAD_LIB_PROCESS_CGROUP_ANCESTOR_H

#include "../base.h"

#ifdef IC_OBJECT_LSM

/* LSM programs may call the helper since 5.14, which the agent probes. */
const volatile __u8 ic_cfg_has_ancestor_helper = 1;

/* Where the kernel lacks the helper, a process in a deeper cgroup matches no rule on cgroups. */
enum { IC_CGROUP_ANCESTOR_DEPTH = 256 };

IC_INLINE __u64 ic_cgroup_ancestor_walk(__u32 level)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct cgroup *group = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	__u32 i;

	for (i = 0; i < IC_CGROUP_ANCESTOR_DEPTH; i++) {
		__u32 here = BPF_CORE_READ(group, level);

		if (here == level)
			return BPF_CORE_READ(group, kn, id);
		if (here < level)
			break;
		group = BPF_CORE_READ(group, self.parent, cgroup);
	}
	return 0;
}

IC_INLINE __u64 ic_cgroup_ancestor_id(__u32 level)
{
	return ic_cfg_has_ancestor_helper ? bpf_get_current_ancestor_cgroup_id(level)
					  : ic_cgroup_ancestor_walk(level);
}

#else

IC_INLINE __u64 ic_cgroup_ancestor_id(__u32 level)
{
	return bpf_get_current_ancestor_cgroup_id(level);
}

#endif

#endif
