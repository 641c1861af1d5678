/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The smallest program at connect(2), as a baseline. */
#include "../lib/base.h"

SEC("cgroup/connect4")
int ic_empty(struct bpf_sock_addr *ctx)
{
	(void)ctx;
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
