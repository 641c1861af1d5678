/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The programs at a cgroup: they decide on operations of sockets. */
#include "../lib/socket/socket.h"
#include "../lib/socket/source_route.h"

/*
 * Whether a ping socket was checked at its creation, as all protocols other than TCP and UDP are.
 */
IC_INLINE bool ic_is_checked_at_create(__u32 protocol)
{
	return protocol == IC_PROTO_ICMP || protocol == IC_PROTO_ICMPV6;
}

IC_INLINE int ic_check4(struct bpf_sock_addr *ctx, __u8 op)
{
	struct ic_request request = {
		.addr.word[0] = ctx->user_ip4,
		.port = ctx->user_port,
		.family = 4,
		.op = op,
		.proto = ic_request_proto(ctx->protocol),
	};

	if (ic_is_checked_at_create(ctx->protocol))
		return 1;
	if (!ic_socket_decide(&request))
		return 0;
	/*
	 * Make the kernel use the address that was checked: from a socket that is bound to an
	 * address or an interface, the unspecified address leads elsewhere.
	 */
	if (op != IC_SOCK_BIND && !ctx->user_ip4)
		ctx->user_ip4 = bpf_htonl(IC_LOOPBACK4);
	return 1;
}

IC_INLINE int ic_check6(struct bpf_sock_addr *ctx, __u8 op)
{
	struct ic_request request = {
		.addr.word = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2],
			       ctx->user_ip6[3] },
		.port = ctx->user_port,
		.family = 6,
		.op = op,
		.proto = ic_request_proto(ctx->protocol),
	};

	if (ic_is_checked_at_create(ctx->protocol))
		return 1;
	if (!ic_socket_decide(&request))
		return 0;
	if (op != IC_SOCK_BIND && !ctx->user_ip6[0] && !ctx->user_ip6[1] && !ctx->user_ip6[3]) {
		if (!ctx->user_ip6[2])
			ctx->user_ip6[3] = bpf_htonl(1);
		else if (ctx->user_ip6[2] == bpf_htonl(0xffff))
			ctx->user_ip6[3] = bpf_htonl(IC_LOOPBACK4);
	}
	return 1;
}

SEC("cgroup/connect4")
int ic_connect4(struct bpf_sock_addr *ctx)
{
	return ic_check4(ctx, IC_SOCK_CONNECT);
}

SEC("cgroup/connect6")
int ic_connect6(struct bpf_sock_addr *ctx)
{
	return ic_check6(ctx, IC_SOCK_CONNECT);
}

SEC("cgroup/sendmsg4")
int ic_sendmsg4(struct bpf_sock_addr *ctx)
{
	return ic_check4(ctx, IC_SOCK_SEND);
}

SEC("cgroup/sendmsg6")
int ic_sendmsg6(struct bpf_sock_addr *ctx)
{
	return ic_check6(ctx, IC_SOCK_SEND);
}

SEC("cgroup/bind4")
int ic_bind4(struct bpf_sock_addr *ctx)
{
	return ic_check4(ctx, IC_SOCK_BIND);
}

SEC("cgroup/bind6")
int ic_bind6(struct bpf_sock_addr *ctx)
{
	return ic_check6(ctx, IC_SOCK_BIND);
}

/*
 * TCP and UDP are checked when they name the peer. Other protocols have no such hook; UDP-Lite has
 * one for datagrams, which connect(2) bypasses.
 */
SEC("cgroup/sock_create")
int ic_sock_create(struct bpf_sock *ctx)
{
	__u32 protocol = ctx->protocol, type = ctx->type;
	struct ic_request request = { .op = IC_SOCK_CREATE };

	if (type == IC_SOCK_STREAM && ic_request_proto(protocol) == IC_PROTO_TCP)
		return 1;
	if (type == IC_SOCK_DGRAM && protocol == IC_PROTO_UDP)
		return 1;
	request.proto = type == IC_SOCK_RAW ? IC_SOCK_PROTO_RAW : ic_request_proto(protocol);
	return ic_socket_decide(&request);
}

/*
 * Where rules compare addresses, source-routed packets are dropped. The running process is not
 * always the packet's sender: an event has the socket's owner and cgroup.
 */
IC_INLINE struct ic_sock_event *ic_enforce_route(struct ic_decision *decision, bool *refused)
{
	__u32 slot = ic_slot_in_force();
	const struct ic_sock_policy *policy = bpf_map_lookup_elem(&ic_sock_policy, &slot);

	if (!policy || !policy->generation || !(policy->dims >> IC_DIM_WHERE & 1))
		return NULL;
	decision->reason = IC_SOCK_REASON_ROUTE;
	decision->verdict = IC_VERDICT_DROP;
	decision->generation = policy->generation;
	decision->rate = policy->rate;
	*refused = ic_socket_count(policy, decision);
	return ic_socket_event_begin(decision);
}

SEC("cgroup_skb/egress")
int ic_egress(struct __sk_buff *skb)
{
	struct ic_packet packet = {};
	struct ic_decision decision = {};
	struct ic_request request = { .op = IC_SOCK_SEND, .flags = IC_SOCK_EV_UNIDENTIFIED };
	struct ic_sock_event *ev;
	bool refused = false;

	if (!ic_is_source_routed(skb, &packet))
		return 1;
	ev = ic_enforce_route(&decision, &refused);
	if (ev) {
		request.addr = packet.dst;
		request.family = packet.family;
		request.proto = packet.proto;
		ev->uid = bpf_get_socket_uid(skb);
		ev->cgroup = bpf_skb_cgroup_id(skb);
		ic_socket_event_submit(ev, &request, &decision);
	}
	return !refused;
}

/*
 * A source route that is set on a socket may leave where ic_egress() does not see it: in replies to
 * a SYN, which belong to no socket yet, and within IPsec.
 */
SEC("cgroup/setsockopt")
int ic_setsockopt(struct bpf_sockopt *ctx)
{
	struct ic_decision decision = {};
	struct ic_request request = { .op = IC_SOCK_CREATE, .flags = IC_SOCK_EV_UNIDENTIFIED };
	struct ic_sock_event *ev;
	bool refused = false;

	if (ic_is_source_route_option(ctx)) {
		ev = ic_enforce_route(&decision, &refused);
		if (ev) {
			ev->uid = bpf_get_current_uid_gid();
			ev->cgroup = bpf_get_current_cgroup_id();
			ic_socket_event_submit(ev, &request, &decision);
		}
	}
	/*
	 * The option is longer than a program can read: the kernel shall use the bytes of the
	 * process.
	 */
	if (!refused && ctx->optlen > IC_SOCKOPT_SEEN)
		ctx->optlen = 0;
	return !refused;
}

char _license[] SEC("license") = "Dual BSD/GPL";
