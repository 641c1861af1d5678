/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Labels of executables: the path of the first execve(2) of each. They prove nothing. */
#ifndef IRONCLAD_LIB_PROCESS_EXE_NAMES_H
#define IRONCLAD_LIB_PROCESS_EXE_NAMES_H

#include "process.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct ic_file_id);
	__type(value, struct ic_exe_name);
} ic_exe_names SEC(".maps");

/*
 * The path that execve(2) was called with; of a script, the interpreter in its first line. A failed
 * update only loses a label: the next execve(2) tries again.
 */
IC_INLINE void ic_exe_name(const struct ic_file_id *exe, const struct linux_binprm *bprm)
{
	struct ic_exe_name name = {};

	if (bpf_map_lookup_elem(&ic_exe_names, exe))
		return;
	if (bpf_probe_read_kernel_str(name.path, sizeof(name.path), bprm->interp) > 1)
		bpf_map_update_elem(&ic_exe_names, exe, &name, BPF_NOEXIST);
}

#endif
