"""Settings of plain datagrams: limits of a server and a client, multicast groups to join."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.udp.groups import check_groups

MAX_PAYLOAD = 65_507
"""The longest datagram that IPv4 carries, in bytes: 65,535 less two headers (RFC 768, RFC 791)."""

REFLECTOR_PORTS = (
    1434, 1900, 3283, 3389, 3478, 3702, 5060, 5093, 5353, 5683, 10_001, 11_211, 20_800, 27_015,
    27_960, 30_120, 32_414,
)  # fmt: skip
"""
Ports above 1023 whose services answer whatever they are sent and have been used for attacks.

SQL Server's browser, SSDP, Apple's remote desktop, RDP, STUN, WS-Discovery, SIP, Sentinel, mDNS,
CoAP, Ubiquiti's discovery, memcached, four games' and Plex: the services of US-CERT's alert
TA14-017A, and others that operators have reported since. None is an ephemeral port of Linux
(32768 to 60999), so no ordinary client sends from one.
"""


class DatagramLimits(Record, frozen=True):
    """
    Limits of a datagram server.

    ``max_datagram`` is the receive buffer of the system that this one replaces. 64 datagrams per
    turn take about half a millisecond, so that a flood does not starve TCP. A receive buffer of
    4 MiB held 3 to 4 times as much of a burst as the kernel's usual 208 KiB. 10,000 clients take
    about 3 MiB. The send queue is as large as the kernel's own send buffer.

    ``guard`` and the settings after it prevent reflection attacks through forged source addresses
    (:mod:`twisted_net.udp.amplification_guard`). On loopback no address is forged. Ports below
    1024 belong to system services, not to clients. 1000 datagrams per second are more than one
    site sends by hand or by timer, and that many short answers overload no victim.
    """

    max_datagram: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_PAYLOAD,
            description="longest datagram accepted, in bytes; longer ones are rejected and counted",
        ),
    ] = 4096
    max_clients: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="clients in the table; over it, the one silent for longest is evicted",
        ),
    ] = 10_000
    datagrams_per_turn: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="datagrams read per reactor turn, before other connections are served",
        ),
    ] = 64
    receive_buffer: Annotated[
        int,
        Meta(
            ge=4096,
            le=1 << 30,
            description="receive buffer requested of the kernel, in bytes of its own accounting",
        ),
    ] = 4 << 20
    send_buffer: (
        Annotated[
            int,
            Meta(ge=4096, le=1 << 30, description="send buffer requested of the kernel, in bytes"),
        ]
        | None
    ) = None
    send_queue: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 30,
            description="bytes of answers queued while the kernel accepts none; more are dropped",
        ),
    ] = 262_144
    summary_interval: Annotated[
        float,
        Meta(ge=0, le=86_400, description="seconds between summaries in the log; 0 for none"),
    ] = 10.0
    guard: Annotated[
        Literal["public", "always", "never"],
        Meta(description="sockets guarded against forged sources; public: those not on loopback"),
    ] = "public"
    refusal: Annotated[
        Literal["pad", "silence"],
        Meta(description="reply to a request shorter than its answer; guarded sockets"),
    ] = "pad"
    lowest_source_port: Annotated[
        int,
        Meta(ge=1, le=65_535, description="lowest source port answered; guarded sockets"),
    ] = 1024
    reflector_ports: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=65_535)], ...],
        Meta(description="source ports never answered, besides our own; guarded sockets"),
    ] = REFLECTOR_PORTS
    datagrams_per_network: (
        Annotated[
            float,
            Meta(gt=0, description="datagrams per second of one /24 or /64; guarded sockets"),
        ]
        | None
    ) = 1000.0
    datagram_burst: Annotated[
        int,
        Meta(ge=1, description="burst: datagrams of one network accepted at once after a pause"),
    ] = 2000


class DatagramClientSettings(Record, frozen=True):
    """
    Timeouts, retries and queue limit of a datagram client; times in seconds.

    A question is sent again after ``timeout``, then after twice that, and so on, each wait up to
    50 % longer at random, so that clients do not retry in step. With the defaults it fails after
    7.5 to 11 s. Half a second is longer than nearly all round trips of today's networks.
    """

    timeout: Annotated[
        float, Meta(gt=0, le=3600, description="seconds until a question is sent again")
    ] = 0.5
    retries: Annotated[
        int,
        Meta(ge=0, le=20, description="times that a question is sent again, where that is safe"),
    ] = 3
    max_waiting: Annotated[
        int, Meta(ge=0, description="questions queued behind the current one")
    ] = 1000


class GroupSettings(Record, frozen=True):
    """
    Multicast groups on which a server listens, besides its own address.

    Answers are sent from the server's own port, each after a random part of the protocol's
    *leisure*, so that many servers do not answer at once (RFC 7252 §8.2).

    :raises ValueError: for an address that is not a multicast address.
    """

    groups: Annotated[
        tuple[str, ...],
        Meta(description="multicast addresses to listen to, such as 224.0.1.187 or ff02::fd"),
    ] = ()
    interfaces: Annotated[
        tuple[str, ...],
        Meta(description="interfaces on which to join, by name or IPv4 address; none: as routed"),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_groups(self.groups, self.interfaces)
