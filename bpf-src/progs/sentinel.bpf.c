/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * All programs of Sentinel in one object: libbpf parses the kernel's BTF once for each object. Each
 * header holds the hooks of one family.
 */
#include "sentinel/census.h"
#include "sentinel/file.h"
#include "sentinel/gate.h"
#include "sentinel/host.h"
#include "sentinel/preopened.h"
#include "sentinel/sysctl.h"
#include "sentinel/task.h"

char _license[] SEC("license") = "Dual BSD/GPL";
