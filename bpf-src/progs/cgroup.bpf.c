/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is attached to a cgroup: who × where × port × protocol → rule. */
#include "../lib/socket/socket.h"
#include "../lib/socket/source_route.h"

/* Ping sockets are asked for where they are made, as all that is neither TCP nor UDP. */
IC_INLINE bool ic_was_asked(__u32 protocol)
{
	return protocol == IC_PROTO_ICMP || protocol == IC_PROTO_ICMPV6;
}

IC_INLINE int ic_ask4(struct bpf_sock_addr *ctx, __u8 op)
{
	struct ic_ask ask = {
		.addr.word[0] = ctx->user_ip4,
		.port = ctx->user_port,
		.family = 4,
		.op = op,
		.proto = ic_ask_proto(ctx->protocol),
	};

	if (ic_was_asked(ctx->protocol))
		return 1;
	if (!ic_socket_decide(&ask))
		return 0;
	/*
	 * What was decided on is what the kernel is to use: from a socket that is bound to an address or
	 * an interface, the unspecified address leads elsewhere.
	 */
	if (op != IC_SOCK_BIND && !ctx->user_ip4)
		ctx->user_ip4 = bpf_htonl(IC_LOOPBACK4);
	return 1;
}

IC_INLINE int ic_ask6(struct bpf_sock_addr *ctx, __u8 op)
{
	struct ic_ask ask = {
		.addr.word = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2],
			       ctx->user_ip6[3] },
		.port = ctx->user_port,
		.family = 6,
		.op = op,
		.proto = ic_ask_proto(ctx->protocol),
	};

	if (ic_was_asked(ctx->protocol))
		return 1;
	if (!ic_socket_decide(&ask))
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
	return ic_ask4(ctx, IC_SOCK_CONNECT);
}

SEC("cgroup/connect6")
int ic_connect6(struct bpf_sock_addr *ctx)
{
	return ic_ask6(ctx, IC_SOCK_CONNECT);
}

SEC("cgroup/sendmsg4")
int ic_sendmsg4(struct bpf_sock_addr *ctx)
{
	return ic_ask4(ctx, IC_SOCK_SEND);
}

SEC("cgroup/sendmsg6")
int ic_sendmsg6(struct bpf_sock_addr *ctx)
{
	return ic_ask6(ctx, IC_SOCK_SEND);
}

SEC("cgroup/bind4")
int ic_bind4(struct bpf_sock_addr *ctx)
{
	return ic_ask4(ctx, IC_SOCK_BIND);
}

SEC("cgroup/bind6")
int ic_bind6(struct bpf_sock_addr *ctx)
{
	return ic_ask6(ctx, IC_SOCK_BIND);
}

/*
 * TCP and UDP are decided where they say whom they mean. The others have no such hook, or, as
 * UDP-Lite, one for datagrams that connect(2) goes round.
 */
SEC("cgroup/sock_create")
int ic_sock_create(struct bpf_sock *ctx)
{
	__u32 protocol = ctx->protocol, type = ctx->type;
	struct ic_ask ask = { .op = IC_SOCK_CREATE };

	if (type == IC_SOCK_STREAM && ic_ask_proto(protocol) == IC_PROTO_TCP)
		return 1;
	if (type == IC_SOCK_DGRAM && protocol == IC_PROTO_UDP)
		return 1;
	ask.proto = type == IC_SOCK_RAW ? IC_SOCK_PROTO_RAW : ic_ask_proto(protocol);
	return ic_socket_decide(&ask);
}

/*
 * Where rules ask of addresses, nothing leaves by a way of its own. Who runs is not whose packet it
 * is: an event names the socket's owner and cgroup.
 */
IC_INLINE struct ic_sock_event *ic_route_judge(struct ic_answer *answer, bool *refused)
{
	__u32 slot = ic_slot_in_force();
	const struct ic_sock_policy *policy = bpf_map_lookup_elem(&ic_sock_policy, &slot);

	if (!policy || !policy->generation || !(policy->dims >> IC_DIM_WHERE & 1))
		return NULL;
	answer->reason = IC_SOCK_REASON_ROUTE;
	answer->verdict = IC_VERDICT_DROP;
	answer->generation = policy->generation;
	answer->rate = policy->rate;
	*refused = ic_socket_count(policy, answer);
	return ic_socket_ev_begin(answer);
}

SEC("cgroup_skb/egress")
int ic_egress(struct __sk_buff *skb)
{
	struct ic_packet packet = {};
	struct ic_answer answer = {};
	struct ic_ask ask = { .op = IC_SOCK_SEND, .flags = IC_SOCK_EV_UNIDENTIFIED };
	struct ic_sock_event *ev;
	bool refused = false;

	if (!ic_source_route(skb, &packet))
		return 1;
	ev = ic_route_judge(&answer, &refused);
	if (ev) {
		ask.addr = packet.dst;
		ask.family = packet.family;
		ask.proto = packet.proto;
		ev->uid = bpf_get_socket_uid(skb);
		ev->cgroup = bpf_skb_cgroup_id(skb);
		ic_socket_ev_submit(ev, &ask, &answer);
	}
	return !refused;
}

/*
 * What a socket is told once may leave where ic_egress() does not see it: in answers to a SYN, which
 * belong to no socket yet, and in what IPsec wraps.
 */
SEC("cgroup/setsockopt")
int ic_setsockopt(struct bpf_sockopt *ctx)
{
	struct ic_answer answer = {};
	struct ic_ask ask = { .op = IC_SOCK_CREATE, .flags = IC_SOCK_EV_UNIDENTIFIED };
	struct ic_sock_event *ev;
	bool refused = false;

	if (ic_source_route_option(ctx)) {
		ev = ic_route_judge(&answer, &refused);
		if (ev) {
			ev->uid = bpf_get_current_uid_gid();
			ev->cgroup = bpf_get_current_cgroup_id();
			ic_socket_ev_submit(ev, &ask, &answer);
		}
	}
	/* Of more than a program may see, the kernel is to use what the process gave. */
	if (!refused && ctx->optlen > IC_SOCKOPT_SEEN)
		ctx->optlen = 0;
	return !refused;
}

char _license[] SEC("license") = "Dual BSD/GPL";
