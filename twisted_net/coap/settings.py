"""CoAP settings: RFC 7252 transmission parameters, server limits, client settings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, structs

from twisted_net.coap.blockwise import LARGEST_BLOCK, block_size_within
from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments
from twisted_net.dtls.records import OVERHEAD
from twisted_net.dtls.settings import DtlsSettings

SECURE_PORT = 5684
"""Default port of ``coaps`` URIs (RFC 7252 §6.2)."""

DEFAULT_PORT = 5683
"""Default port of ``coap`` URIs (RFC 7252 §6.1)."""


class TransmissionParameters(Record, frozen=True):
    """
    Transmission parameters of the message layer (RFC 7252 §4.8), and the limits of its state.

    The first six defaults are those of RFC 7252; an endpoint that lowers them needs peers that do
    the same. libcoap and aiocoap, too, send an empty ACK after 0.1 s: well before the first
    retransmission. Each exchange kept takes about 400 bytes, beside its response.
    """

    ack_timeout: Annotated[
        float,
        Meta(
            ge=0.01,
            le=60,
            description="least seconds before the first retransmission",
        ),
    ] = 2.0
    ack_random_factor: Annotated[
        float, Meta(ge=1, le=10, description="the first timeout is up to so many times ack_timeout")
    ] = 1.5
    max_retransmit: Annotated[
        int, Meta(ge=0, le=20, description="retransmissions of a confirmable message")
    ] = 4
    nstart: Annotated[
        int,
        Meta(ge=1, le=1024, description="outstanding exchanges with one peer"),
    ] = 1
    probing_rate: Annotated[
        float,
        Meta(ge=0.1, le=1e9, description="bytes a second sent to a peer that does not respond"),
    ] = 1.0
    max_latency: Annotated[
        float,
        Meta(ge=0.01, le=1000, description="most seconds that a datagram takes"),
    ] = 100.0
    ack_delay: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="seconds after which a request without a response yet is acknowledged",
        ),
    ] = 0.1
    max_peers: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="peers kept; over it, the least recently active one is evicted",
        ),
    ] = 10_000
    max_exchanges: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="received messages kept, so that no request runs twice; shared by peers",
        ),
    ] = 50_000
    max_exchange_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 34,
            description="bytes of responses kept for duplicates; shared by peers",
        ),
    ] = 16 << 20
    max_queued: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="messages to one peer that are queued for nstart"),
    ] = 1000

    @property
    def max_transmit_span(self) -> float:
        """Seconds from the first transmission of a message to its last retransmission."""
        return self.ack_timeout * (2.0**self.max_retransmit - 1) * self.ack_random_factor

    @property
    def max_transmit_wait(self) -> float:
        """Seconds from the first transmission of a message to its timeout."""
        return self.ack_timeout * (2.0 ** (self.max_retransmit + 1) - 1) * self.ack_random_factor

    @property
    def exchange_lifetime(self) -> float:
        """Seconds after which the ID of a confirmable message can be reused."""
        return self.max_transmit_span + 2 * self.max_latency + self.ack_timeout

    @property
    def non_lifetime(self) -> float:
        """Seconds after which the ID of a non-confirmable message can be reused."""
        return self.max_transmit_span + self.max_latency


class CoapLimits(TransmissionParameters, frozen=True):
    """
    Limits of a CoAP server, including those of its message layer.

    Blocks of 1024 bytes are the largest that RFC 7959 has, and fit an IPv6 packet of 1280 bytes.
    A response of at most three times the request is the rule of RFC 9175 §2.3; it holds for
    addresses beyond this machine until they are verified by an Echo option. The leisure of 5 s is
    the default of RFC 7252 §8.2. A CoAP datagram takes about 40 µs, so that 16 of them delay
    other connections by less than a millisecond. Observers are notified once in 24 hours at least
    (RFC 7641 §4.5); half of that is the default.
    """

    max_datagram: Annotated[
        int,
        Meta(ge=64, le=65_507, description="longest datagram accepted, in bytes"),
    ] = 4096
    block_size: Annotated[
        int,
        Meta(ge=16, le=1024, description="largest block sent and requested: 16, 32 … 1024 bytes"),
    ] = 1024
    max_body: Annotated[
        int,
        Meta(ge=16, le=1 << 30, description="longest request body in blocks, in bytes"),
    ] = 1 << 20
    max_transfer_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 34,
            description="bytes of all bodies in block-wise transfer; shared by peers",
        ),
    ] = 16 << 20
    max_transfers: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="bodies in block-wise transfer; shared by peers"),
    ] = 1000
    max_observers: Annotated[
        int, Meta(ge=0, le=1_000_000, description="observations of all peers")
    ] = 10_000
    max_observers_per_peer: Annotated[
        int, Meta(ge=0, le=1_000_000, description="observations of one peer")
    ] = 16
    max_topics: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="topics that are observed, or were published to, over CoAP",
        ),
    ] = 1000
    max_topic_bytes: Annotated[
        int,
        Meta(ge=0, le=1 << 34, description="bytes of the last messages kept of these topics"),
    ] = 4 << 20
    refresh_interval: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="seconds between notifications of observed commands; 0 for only those that"
            " notify() asks for",
        ),
    ] = 5.0
    probe_interval: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="seconds after which an observer that was told nothing is notified, to find"
            " out whether it is still there",
        ),
    ] = 43_200.0
    command_timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds after which a command is cancelled")
    ] = 30.0
    max_waiting: Annotated[
        int, Meta(ge=1, le=1_000_000, description="waiting commands of all peers")
    ] = 1000
    max_waiting_per_peer: Annotated[
        int, Meta(ge=1, le=1_000_000, description="waiting commands of one peer")
    ] = 16
    max_blocking: Annotated[
        int,
        Meta(ge=1, le=100_000, description="blocking commands that run or wait for a thread"),
    ] = 64
    blocking_threads: Annotated[
        int, Meta(ge=1, le=1000, description="threads for blocking commands")
    ] = 20
    amplification: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,
            description="most times the bytes of its request that an unverified address gets as a"
            " response; 0 for no limit",
        ),
    ] = 3.0
    leisure: Annotated[
        float,
        Meta(
            ge=0,
            le=600,
            description="seconds over which multicast responses are spread",
        ),
    ] = 5.0
    datagrams_per_turn: Annotated[
        int,
        Meta(ge=1, le=100_000, description="datagrams read before other connections are served"),
    ] = 16
    receive_buffer: Annotated[
        int,
        Meta(ge=4096, le=1 << 30, description="receive buffer requested from the kernel, in bytes"),
    ] = 4 << 20

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_block_size(self, self.block_size)


class CoapClientSettings(TransmissionParameters, frozen=True):
    """
    Settings of a CoAP client, including those of its message layer.

    ``timeout`` covers a whole call with all its blocks and retransmissions; a single exchange with
    a peer that does not respond ends after at most 93 s (RFC 7252 §4.8.2) in any case.
    """

    timeout: Annotated[
        float, Meta(gt=0, le=86_400, description="seconds that a call may take in all")
    ] = 120.0
    block_size: Annotated[
        int,
        Meta(
            ge=16,
            le=1024,
            description="largest block sent, and requested if under 1024: 16, 32 … 1024 bytes",
        ),
    ] = LARGEST_BLOCK
    max_body: Annotated[
        int, Meta(ge=16, le=1 << 30, description="longest response body accepted, in bytes")
    ] = 8 << 20
    unavailable_retries: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="repetitions of an idempotent request that is answered with 5.03 and"
            " Max-Age, each after that time",
        ),
    ] = 1
    max_notifications: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="notifications kept until they are iterated over; the oldest are dropped",
        ),
    ] = 64
    max_notification_bytes: Annotated[
        int,
        Meta(ge=1024, le=1 << 34, description="bytes of these notifications; one is always kept"),
    ] = 16 << 20

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_block_size(self, self.block_size)


@check_arguments
def limits_over_dtls(limits: CoapLimits, settings: DtlsSettings) -> CoapLimits:
    """Return the limits of a CoAP server over DTLS: its blocks fit the MTU."""
    size = block_size_within(settings.mtu - OVERHEAD, limits.block_size)
    return structs.replace(limits, block_size=size)


def _check_block_size(record: Record, size: int) -> None:
    """
    Check the size of a block (RFC 7959 §2.2).

    :raises ValueError: if it is not a power of two.
    """
    if size & (size - 1):
        raise ValueError(
            f"{type(record).__name__}.block_size must be 16, 32, 64, 128, 256, 512 or 1024,"
            f" not {size}"
        )
