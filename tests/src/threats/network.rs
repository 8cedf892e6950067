//! Reaching the network, and other processes by sockets.

use super::{Chapter, answered, out_of_scope};

pub(super) const CHAPTER: Chapter = Chapter {
    name: "Network",
    entries: &[
        answered(
            "NE-0",
            "profit from a hook that reads its argument wrongly and lets everything pass",
            "Every hook has tests in which it denies and in which it allows",
            &[
                "a_tcp_connection_outside_the_permitted_network_is_refused",
                "an_ipv6_connection_outside_the_permitted_network_is_refused",
                "the_edges_of_a_network_are_exact",
                "a_port_outside_the_permitted_ones_is_refused",
            ],
        ),
        answered(
            "NE-1",
            "connect by sending: TCP fast open, also of MPTCP",
            "A send that connects is a connection, and decided as one; MPTCP sockets take a right of their own",
            &["fast_open_is_judged_as_a_connection", "multipath_tcp_needs_a_right_of_its_own"],
        ),
        answered(
            "NE-2",
            "send datagrams without connecting, with every form of address",
            "`net.send` for every datagram with an address, by the address that the kernel will use, in every form of it",
            &[
                "a_datagram_outside_the_permitted_network_is_refused",
                "a_datagram_is_refused_by_whatever_call_it_is_sent",
                "an_address_without_a_family_is_judged_as_the_ipv4_address_it_is",
                "a_connected_socket_sends_elsewhere_only_where_it_may",
                "turning_a_socket_into_ipv4_meanwhile_lets_nothing_through",
                "a_udp_connection_outside_the_permitted_network_is_refused",
                "an_ipv4_address_on_an_ipv6_socket_is_judged",
                "dissolving_an_association_is_permitted_and_connects_nothing",
            ],
        ),
        answered(
            "NE-4",
            "use io_uring for sockets",
            "Making, connecting, binding, listening and sending are decided however they are submitted",
            &[
                "a_connection_by_io_uring_is_refused",
                "a_socket_made_by_io_uring_is_refused",
                "binding_and_listening_by_io_uring_are_refused",
                "a_datagram_is_refused_by_whatever_call_it_is_sent",
            ],
        ),
        answered(
            "NE-5",
            "use another family or protocol: packet, vsock, netlink, Bluetooth, SMC, SCTP, AF_ALG",
            "Making a socket that is not decided by its addresses takes `net.raw`, for every family, type and protocol that there is",
            &[
                "every_socket_that_is_not_decided_by_its_address_is_refused",
                "a_raw_socket_is_refused",
                "a_netlink_protocol_outside_the_permitted_ones_is_refused",
            ],
        ),
        answered(
            "NE-6",
            "have MPTCP open further connections to addresses that policy never saw",
            "Making an MPTCP socket takes `net.raw`: who permits it permits connections to wherever the peer says",
            &["multipath_tcp_needs_a_right_of_its_own"],
        ),
        answered(
            "NE-7",
            "connect by SCTP's own calls",
            "Making an SCTP socket takes `net.raw`; on one that may be made, addresses of its own calls are decided like others, \
             several in one call are refused, and those attached to a message take `net.raw` on `source-route`",
            &[
                "every_socket_that_is_not_decided_by_its_address_is_refused",
                "an_sctp_association_outside_the_permitted_network_is_refused",
                "several_addresses_in_one_call_are_refused",
                "an_address_that_a_socket_gets_besides_is_decided",
                "a_message_that_begins_an_association_is_decided",
                "addresses_attached_to_a_message_are_decided",
                "a_peer_outside_the_permitted_network_has_no_association",
            ],
        ),
        answered(
            "NE-8",
            "connect by SMC, whose inner TCP connection no hook sees",
            "Making an SMC socket takes `net.raw`",
            &["every_socket_that_is_not_decided_by_its_address_is_refused"],
        ),
        out_of_scope(
            "NE-9",
            "receive past the hook of receiving: splice, zero-copy",
            "this version cuts no connection that is made",
            "restart a workload after tightening its policy",
        ),
        out_of_scope(
            "NE-10",
            "send past the hook of sending: sendfile and splice on 6.1, repeated sendmmsg",
            "this version cuts no connection that is made",
            "restart a workload after tightening its policy",
        ),
        answered(
            "NE-11",
            "connect to unix sockets of services: D-Bus, systemd, container daemons, by any name",
            "Judged by the name that the socket was bound to",
            &[
                "connecting_to_a_unix_socket_is_refused",
                "a_unix_socket_is_refused_through_every_name_of_it",
                "a_renamed_socket_is_judged_by_its_new_name",
                "a_forbid_can_answer_that_nobody_listens",
            ],
        ),
        answered(
            "NE-12",
            "use abstract names and datagrams",
            "Abstract names are names; sending a datagram is decided each time",
            &["an_abstract_socket_is_refused", "sending_to_a_datagram_socket_is_refused"],
        ),
        out_of_scope(
            "NE-13",
            "be given an open file or socket: SCM_RIGHTS, pidfd_getfd, io_uring messages between rings",
            "this version decides when something is opened or connected, not each use of it; taking a descriptor from a process of \
             others is `proc.trace`",
            "permit unix sockets of trusted services only",
        ),
        answered(
            "NE-14",
            "listen, and be connected to",
            "`net.bind`, `net.listen`, and `net.accept` by the peer, which is refused before the connection is there",
            &[
                "binding_a_port_outside_the_permitted_ones_is_refused",
                "binding_is_refused_in_every_form_of_the_address",
                "binding_any_port_is_decided_as_port_zero",
                "listening_is_decided_apart_from_binding",
                "listening_without_binding_is_refused",
                "a_peer_outside_the_permitted_network_does_not_connect",
                "a_request_is_decided_for_whoever_listens",
                "what_waited_at_an_inherited_socket_is_refused_on_first_use",
                "a_datagram_from_outside_the_permitted_network_is_not_received",
            ],
        ),
        answered(
            "NE-15",
            "build a network of one's own: namespaces, tun devices, tunnels",
            "/dev/net/tun is a device that policy must permit; user namespaces take `sys.userns`, configuring networks the \
             capability `net_admin`, in a namespace of one's own as well",
            &[
                "devices_that_anybody_may_use_are_refused",
                "an_own_user_namespace_is_refused",
                "capabilities_of_an_own_user_namespace_are_governed_alike",
            ],
        ),
        answered(
            "NE-16",
            "have packets go elsewhere by socket options: source routes, marks, bound devices",
            "Options that lead packets elsewhere take `net.raw`, or a capability",
            &["leading_packets_by_way_of_other_hosts_is_refused"],
        ),
        out_of_scope(
            "NE-17",
            "make a name mean another address, or have a resolver carry data",
            "policy speaks of addresses; who answers there and what a resolver passes on is not seen",
            "permit networks and proxies, not the world; a resolver of one's own for subjects",
        ),
        out_of_scope(
            "NE-19",
            "inherit sockets that listen or are connected already",
            "this version decides when a connection is made, not each use of it",
            "start subjects with closed descriptors",
        ),
        out_of_scope(
            "NE-20",
            "carry data in pings, names, timing",
            "no hook sees what bytes mean",
            "permit no resolver and no network that the subject does not need",
        ),
    ],
};
