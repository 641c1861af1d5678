/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets that the cgroup hooks never see, because they reach other hosts without IP, and TUN and TAP
 * devices, whose packets no socket sends. BPF LSM sees all processes of the host: those outside of
 * protected cgroups are allowed.
 */
#define IC_OBJECT_LSM 1

#include "../lib/socket/socket.h"

#include <bpf/bpf_tracing.h>

/*
 * Families of include/linux/socket.h that the IP hooks check, and those that stay within the host.
 */
enum {
	IC_AF_UNIX = 1,
	IC_AF_INET = 2,
	IC_AF_INET6 = 10,
	IC_AF_KEY = 15,
	IC_AF_NETLINK = 16,
	IC_AF_ALG = 38,
};

enum { IC_EPERM = 1 };

/* The protected cgroups; unused elements are empty. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, IC_SOCK_CGROUPS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} ic_cgroups SEC(".maps");

/* The protocol of the socket by which the agent verifies that this program runs. */
const volatile __u32 ic_cfg_canary = 0;

/* How often that socket was seen. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} ic_canary SEC(".maps");

IC_INLINE void ic_count_canary(void)
{
	__u32 index = 0;
	__u64 *seen = bpf_map_lookup_elem(&ic_canary, &index);

	if (seen)
		__sync_fetch_and_add(seen, 1);
}

IC_INLINE bool ic_is_family_allowed(int family)
{
	return family == IC_AF_UNIX || family == IC_AF_INET || family == IC_AF_INET6 ||
	       family == IC_AF_KEY || family == IC_AF_NETLINK || family == IC_AF_ALG;
}

IC_INLINE bool ic_is_protected(void)
{
	__u32 i;

	for (i = 0; i < IC_SOCK_CGROUPS_MAX; i++) {
		if (bpf_current_task_under_cgroup(&ic_cgroups, i) == 1)
			return true;
	}
	return false;
}

/*
 * 0 or an error. A policy may come into force between this lookup and that of the decision: then the
 * new one decides, even if it has no rule on packet sockets.
 */
IC_INLINE int ic_decide_packets(void)
{
	struct ic_request request = { .op = IC_SOCK_CREATE, .proto = IC_SOCK_PROTO_PACKET };
	__u32 slot = ic_slot_in_force();
	const struct ic_sock_policy *policy;

	policy = bpf_map_lookup_elem(&ic_sock_policy, &slot);
	if (!policy || !policy->packets || !ic_is_protected())
		return 0;
	return ic_socket_decide(&request) ? 0 : -IC_EPERM;
}

/* `ret` is the result of the program before. */
SEC("lsm/socket_create")
int BPF_PROG(ic_packet, int family, int type, int protocol, int kern, int ret)
{
	if (ret)
		return ret;
	if (family == IC_AF_UNIX && (__u32)protocol == ic_cfg_canary)
		ic_count_canary();
	if (kern || ic_is_family_allowed(family))
		return 0;
	return ic_decide_packets();
}

/* A new TUN or TAP device. */
SEC("lsm/tun_dev_create")
int BPF_PROG(ic_tun_create, int ret)
{
	return ret ? ret : ic_decide_packets();
}

/* One that exists, by another descriptor. */
SEC("lsm/tun_dev_open")
int BPF_PROG(ic_tun_open, void *security, int ret)
{
	return ret ? ret : ic_decide_packets();
}

char _license[] SEC("license") = "Dual BSD/GPL";
