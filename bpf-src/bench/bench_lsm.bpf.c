/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The smallest program at open(2), as a baseline. */
#include "../lib/base.h"

#include <bpf/bpf_tracing.h>

SEC("lsm/file_open")
int BPF_PROG(ic_empty_open, struct file *file)
{
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
