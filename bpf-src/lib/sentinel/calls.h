/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The calls of programs that other processes load. The type of a program does not bound what it can
 * do: kernel functions (kfuncs) send signals and read the memory of any process from programs of
 * every type.
 */
#ifndef IRONCLAD_LIB_SENTINEL_CALLS_H
#define IRONCLAD_LIB_SENTINEL_CALLS_H

#include "alarm.h"

/* Kernel functions that programs may call, by their numbers in the kernel's BTF. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IC_SENTINEL_KFUNCS);
	__type(key, __u32);
	__type(value, __u32);
} ic_kfuncs SEC(".maps");

/* Bit n: programs may not call helper n. */
const volatile __u64 ic_cfg_helpers[IC_SENTINEL_HELPERS / 64] = {};

enum {
	IC_INSN_CALL = 0x85, /* BPF_JMP | BPF_CALL of include/uapi/linux/bpf.h */
	IC_INSN_PSEUDO_CALL = 1, /* a function of the program */
	IC_INSN_PSEUDO_KFUNC_CALL = 2,
	IC_INSN_CLASS = 0x07,
	IC_INSN_ST = 0x02,
	IC_INSN_STX = 0x03,
	IC_INSN_MODE = 0xe0,
	IC_INSN_MEM = 0x60,
	IC_INSN_STACK = 10, /* the register of the stack */
	IC_INSN_TAIL_CALL = 0xf5, /* include/linux/filter.h */
	IC_INSN_SIZE = 8,
	/* Instructions that one function reads: the verifier visits each step of its loop. */
	IC_INSNS_READ = 64,
	IC_INSNS_BLOCK = 64 * IC_INSNS_READ,
	IC_INSNS = 1 << 20, /* above the kernel's limit, BPF_COMPLEXITY_LIMIT_INSNS */
};

/*
 * What an instruction calls that programs of other processes may not call: the number of a helper,
 * or that of a kernel function with IC_CALL_KFUNC. 0: nothing.
 */
IC_INLINE __u32 ic_harmful_call(__u64 insn)
{
	__u32 id = insn >> 32, kind = insn >> 12 & 0xf, offset = insn >> 16 & 0xffff;
	__u64 word;

	if ((insn & 0xff) != IC_INSN_CALL || kind == IC_INSN_PSEUDO_CALL)
		return 0;
	if (kind != IC_INSN_PSEUDO_KFUNC_CALL) {
		word = ic_cfg_helpers[id / 64 & (IC_SENTINEL_HELPERS / 64 - 1)];
		if (id < IC_SENTINEL_HELPERS && !(word >> (id & 63) & 1))
			return 0;
		return id ?: IC_CALL_UNKNOWN;
	}
	/* The numbers of modules are in their own BTF. */
	if (offset)
		return id | IC_CALL_KFUNC | IC_CALL_MODULE;
	return bpf_map_lookup_elem(&ic_kfuncs, &id) ? 0 : id | IC_CALL_KFUNC;
}

/*
 * Whether an instruction may change the context, which at connect(2) and its like has the address:
 * it stores elsewhere than on the stack, or goes on with another program. The verifier has replaced
 * calls of bpf_tail_call().
 */
IC_INLINE bool ic_is_rewriting(__u64 insn)
{
	__u32 code = insn & 0xff, to = insn >> 8 & 0xf, kind = code & IC_INSN_CLASS;

	if ((kind == IC_INSN_ST || kind == IC_INSN_STX) && (code & IC_INSN_MODE) == IC_INSN_MEM)
		return to != IC_INSN_STACK;
	return code == IC_INSN_TAIL_CALL;
}

/*
 * What is looked for, calls or rewriting instructions, in so many instructions at an address, at
 * most IC_INSNS_READ.
 */
__noinline __u32 ic_harm_at(__u64 address, __u32 count, __u32 rewriting)
{
	__u32 call, i;
	__u64 insn;

	for (i = 0; i < IC_INSNS_READ; i++) {
		if (i >= count)
			return 0;
		if (bpf_probe_read_kernel(&insn, sizeof(insn), (void *)address))
			return IC_CALL_UNKNOWN;
		call = rewriting ? ic_is_rewriting(insn) : ic_harmful_call(insn);
		if (call)
			return call;
		address += IC_INSN_SIZE;
	}
	return 0;
}

/* At most IC_INSNS_BLOCK. */
__noinline __u32 ic_harm_in_block(__u64 address, __u32 count, __u32 rewriting)
{
	__u32 call, i;

	for (i = 0; i < IC_INSNS_BLOCK; i += IC_INSNS_READ) {
		if (i >= count)
			return 0;
		call = ic_harm_at(address, count - i, rewriting);
		if (call)
			return call;
		address += IC_INSNS_READ * IC_INSN_SIZE;
	}
	return 0;
}

/* The same for a program; for its calls before the verifier changes its instructions. */
__noinline __u32 ic_harm_of(__u64 prog_at, __u32 rewriting)
{
	struct bpf_prog *prog = (struct bpf_prog *)prog_at;
	__u64 address = prog_at + bpf_core_field_offset(struct bpf_prog, insnsi);
	__u32 count = BPF_CORE_READ(prog, len), call, i;

	for (i = 0; i < IC_INSNS; i += IC_INSNS_BLOCK) {
		if (i >= count)
			return 0;
		call = ic_harm_in_block(address, count - i, rewriting);
		if (call)
			return call;
		address += IC_INSNS_BLOCK * IC_INSN_SIZE;
	}
	return IC_CALL_UNKNOWN;
}

/*
 * Denies the loading of a program by a process that is not trusted, where the program calls what
 * acts on other processes or reads their memory.
 */
IC_INLINE int ic_check_calls(struct bpf_prog *prog)
{
	__u32 call;

	if (!ic_is_armed() || !(IC_READ_ONCE(ic_sentinel.refuse) & IC_REFUSE_CALLS) ||
	    ic_is_trusted() || ic_has_exemption(IC_MAY_LOAD))
		return 0;
	call = ic_harm_of(ic_address(prog), false);
	return call ? ic_refuse(IC_HOOK_BPF_PROG_LOAD, BPF_CORE_READ(prog, type), call) : 0;
}

#endif
