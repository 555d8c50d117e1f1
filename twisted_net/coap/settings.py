"""Every number of CoAP: the transmission parameters of RFC 7252, and the bounds of our own."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, structs

from twisted_net.coap.blockwise import block_size_within
from twisted_net.config.record import Record
from twisted_net.dtls.records import OVERHEAD
from twisted_net.dtls.settings import DtlsSettings

DEFAULT_PORT = 5683
"""The port of ``coap`` URIs that name none (RFC 7252 §6.1)."""


class TransmissionParameters(Record, frozen=True):
    """
    How messages are sent again, and how long they are remembered.

    The first six defaults are those of RFC 7252 §4.8; an endpoint that lowers them needs peers
    that did the same. An empty ACK after a tenth of a second is what libcoap and aiocoap send
    too: it is well before the first retransmission. A remembered exchange is some 500 bytes.
    """

    ack_timeout: Annotated[
        float,
        Meta(ge=0.01, le=60, description="seconds before the first retransmission, at least"),
    ] = 2.0
    ack_random_factor: Annotated[
        float, Meta(ge=1, le=10, description="the first wait is up to so many times ack_timeout")
    ] = 1.5
    max_retransmit: Annotated[
        int, Meta(ge=0, le=20, description="times that a confirmable message is sent again")
    ] = 4
    nstart: Annotated[
        int,
        Meta(ge=1, le=1024, description="exchanges of ours under way with one peer (NSTART)"),
    ] = 1
    probing_rate: Annotated[
        float,
        Meta(ge=0.1, le=1e9, description="bytes a second sent to a peer that does not answer"),
    ] = 1.0
    max_latency: Annotated[
        float, Meta(ge=0.01, le=1000, description="seconds that a datagram takes at most")
    ] = 100.0
    ack_delay: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="seconds after which a request whose answer waits is acknowledged",
        ),
    ] = 0.1
    max_peers: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="peers remembered; over it, the one silent for longest is forgotten",
        ),
    ] = 10_000
    max_exchanges: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="received messages remembered, so that none runs twice; shared by peers",
        ),
    ] = 50_000
    max_exchange_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 34,
            description="bytes of answers kept for repetition; shared by peers",
        ),
    ] = 16 << 20
    max_queued: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="messages to one peer that wait for nstart"),
    ] = 1000

    @property
    def max_transmit_span(self) -> float:
        """Seconds from the first transmission of a message to its last."""
        return self.ack_timeout * (2.0**self.max_retransmit - 1) * self.ack_random_factor

    @property
    def max_transmit_wait(self) -> float:
        """Seconds from the first transmission of a message to giving it up."""
        return self.ack_timeout * (2.0 ** (self.max_retransmit + 1) - 1) * self.ack_random_factor

    @property
    def exchange_lifetime(self) -> float:
        """Seconds after which the ID of a confirmable message may be used again."""
        return self.max_transmit_span + 2 * self.max_latency + self.ack_timeout

    @property
    def non_lifetime(self) -> float:
        """Seconds after which the ID of a non-confirmable message may be used again."""
        return self.max_transmit_span + self.max_latency


class CoapLimits(TransmissionParameters, frozen=True):
    """
    Every bound of a CoAP server, beside those of its messages.

    Blocks of 1024 bytes are the largest that there are, and fit one IPv6 packet of 1280. An answer
    of at most three times the question is the rule of RFC 9175 §2.3; it holds for addresses
    beyond this machine, until they return an Echo option. Five seconds of leisure are RFC 7252's.
    A CoAP datagram costs some 40 µs, so that 16 of them hold others up for less than a millisecond.
    """

    max_datagram: Annotated[
        int,
        Meta(ge=64, le=65_507, description="longest datagram accepted, in bytes"),
    ] = 4096
    block_size: Annotated[
        int,
        Meta(ge=16, le=1024, description="largest block sent and asked for: 16, 32 … 1024 bytes"),
    ] = 1024
    max_body: Annotated[
        int,
        Meta(ge=16, le=1 << 30, description="longest body put together of blocks, in bytes"),
    ] = 1 << 20
    max_transfer_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 34,
            description="bytes of all bodies on their way in blocks; shared by peers",
        ),
    ] = 16 << 20
    max_transfers: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="bodies on their way in blocks; shared by peers"),
    ] = 1000
    max_observers: Annotated[
        int, Meta(ge=0, le=1_000_000, description="observations of all peers")
    ] = 1000
    max_observers_per_peer: Annotated[
        int, Meta(ge=0, le=1_000_000, description="observations of one peer")
    ] = 16
    max_topics: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="topics that are followed for who observes, or published, over CoAP",
        ),
    ] = 1000
    max_topic_bytes: Annotated[
        int,
        Meta(ge=0, le=1 << 34, description="bytes of the last messages of these topics"),
    ] = 4 << 20
    refresh_interval: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="seconds between two looks at resources that change by themselves;"
            " 0 for none",
        ),
    ] = 5.0
    command_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds that a command may take")
    ] = 30.0
    max_waiting: Annotated[
        int, Meta(ge=1, le=1_000_000, description="commands under way for all peers")
    ] = 1000
    max_waiting_per_peer: Annotated[
        int, Meta(ge=1, le=1_000_000, description="commands under way for one peer")
    ] = 16
    max_blocking: Annotated[
        int,
        Meta(ge=1, le=100_000, description="blocking commands that run or wait for a thread"),
    ] = 64
    amplification: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="an answer to an address that is not proven is at most so many times"
            " the question; 0 for no such rule",
        ),
    ] = 3.0
    leisure: Annotated[
        float,
        Meta(ge=0, le=600, description="seconds over which answers to a group are spread"),
    ] = 5.0
    datagrams_per_turn: Annotated[
        int,
        Meta(
            ge=1, le=100_000, description="datagrams read before other connections have their turn"
        ),
    ] = 16
    receive_buffer: Annotated[
        int,
        Meta(ge=4096, le=1 << 30, description="receive buffer asked of the kernel, in bytes"),
    ] = 4 << 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_size & (self.block_size - 1):
            raise ValueError(
                f"{type(self).__name__}.block_size must be 16, 32, 64, 128, 256, 512 or 1024,"
                f" not {self.block_size}"
            )


def coap_limits(limits: CoapLimits, settings: DtlsSettings) -> CoapLimits:
    """Give the limits of a CoAP server over DTLS: its blocks are such as the MTU lets through."""
    size = block_size_within(settings.mtu - OVERHEAD, limits.block_size)
    return structs.replace(limits, block_size=size)
