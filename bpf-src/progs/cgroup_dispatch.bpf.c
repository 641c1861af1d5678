/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is attached to a cgroup. Like the dispatcher at the interfaces it knows no policy: it calls
 * the one that the selector names, and the same selector names both.
 */
#include "../lib/slots.h"
#include "../lib/sock_shared.h"

/* Rule id to slot in ic_sock_stats, for the agent alone: counters outlive it. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ic_sock_slots SEC(".maps");

/* Digest of a limit's name and scope to bucket, for the agent alone. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u32);
} ic_bucket_slots SEC(".maps");

/* A program array holds programs of one hook only. */
struct ic_sock_hook {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, IC_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
};

struct ic_sock_hook ic_at_connect4 SEC(".maps");
struct ic_sock_hook ic_at_connect6 SEC(".maps");
struct ic_sock_hook ic_at_sendmsg4 SEC(".maps");
struct ic_sock_hook ic_at_sendmsg6 SEC(".maps");
struct ic_sock_hook ic_at_bind4 SEC(".maps");
struct ic_sock_hook ic_at_bind6 SEC(".maps");
struct ic_sock_hook ic_at_create SEC(".maps");

/* Shield fails open, and says so. */
IC_INLINE int ic_sock_dispatch(void *ctx, const void *slots)
{
	ic_slots_call(ctx, slots);
	ic_count_loss(IC_LOSS_NO_POLICY);
	return 1;
}

SEC("cgroup/connect4")
int ic_connect4(struct bpf_sock_addr *ctx)
{
	return ic_sock_dispatch(ctx, &ic_at_connect4);
}

SEC("cgroup/connect6")
int ic_connect6(struct bpf_sock_addr *ctx)
{
	return ic_sock_dispatch(ctx, &ic_at_connect6);
}

SEC("cgroup/sendmsg4")
int ic_sendmsg4(struct bpf_sock_addr *ctx)
{
	return ic_sock_dispatch(ctx, &ic_at_sendmsg4);
}

SEC("cgroup/sendmsg6")
int ic_sendmsg6(struct bpf_sock_addr *ctx)
{
	return ic_sock_dispatch(ctx, &ic_at_sendmsg6);
}

SEC("cgroup/bind4")
int ic_bind4(struct bpf_sock_addr *ctx)
{
	return ic_sock_dispatch(ctx, &ic_at_bind4);
}

SEC("cgroup/bind6")
int ic_bind6(struct bpf_sock_addr *ctx)
{
	return ic_sock_dispatch(ctx, &ic_at_bind6);
}

SEC("cgroup/sock_create")
int ic_create(struct bpf_sock *ctx)
{
	return ic_sock_dispatch(ctx, &ic_at_create);
}

char _license[] SEC("license") = "Dual BSD/GPL";
