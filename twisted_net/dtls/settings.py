"""What can be set for DTLS: the bounds of a server, and whom a client believes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.config.tls import TlsSettings

DEFAULT_PORT = 5684
"""The port of ``coaps`` URIs that name none (RFC 7252 §6.2)."""

Mtu = Annotated[
    int,
    Meta(
        ge=256,
        le=16_384,
        description="longest datagram sent, in bytes, without the headers of IP and UDP",
    ),
]


class DtlsSettings(TlsSettings, frozen=True):
    """
    DTLS on one UDP port, beside its certificates: the bounds of its sessions.

    There is none where neither a certificate nor a folder is named.

    1232 bytes are what the smallest packet of IPv6, 1280, leaves for a datagram, and hold a CoAP
    block of 1024. A new handshake, of 0.7 ms, costs less than to keep some 70 KiB for a device that
    has been silent for ten minutes. A handshake that loses four datagrams in a row is over in 30
    seconds; one with a long chain of certificates takes in 16 KiB. Devices behind one address
    come back together after a power cut, and share 16 handshakes.
    """

    mtu: Mtu = 1232
    max_sessions: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="sessions at once; over it, the one silent for longest is ended",
        ),
    ] = 1000
    max_handshakes: Annotated[
        int,
        Meta(ge=1, le=100_000, description="handshakes at once; over it, new ones are refused"),
    ] = 100
    max_handshakes_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="handshakes at once of one address, of IPv6 one /64; then new ones are"
            " refused",
        ),
    ] = 16
    max_handshake_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 24,
            description="bytes that a peer may send before its handshake is over",
        ),
    ] = 64 << 10
    handshake_timeout: Annotated[
        float, Meta(gt=0, le=3600, description="seconds that a handshake may take")
    ] = 30.0
    idle_timeout: Annotated[
        float,
        Meta(gt=0, le=1e7, description="seconds of silence after which a session is ended"),
    ] = 600.0


class DtlsClientSettings(Record, frozen=True):
    """
    Whom a DTLS client believes, what it proves to be, and its bounds.

    :raises ValueError: for settings that contradict each other.
    """

    ca: Annotated[
        str,
        Meta(description="PEM file with those who sign servers' certificates; else the system's"),
    ] = ""
    certificate: Annotated[
        str,
        Meta(description="PEM file: the certificate, then its chain; its key, unless in key"),
    ] = ""
    key: Annotated[str, Meta(description="PEM file with the key of the certificate")] = ""
    verify: Annotated[
        bool, Meta(description="whether a server is refused whose certificate is not for its name")
    ] = True
    mtu: Mtu = 1232
    handshake_timeout: Annotated[
        float, Meta(gt=0, le=3600, description="seconds that a handshake may take")
    ] = 30.0
    max_sessions: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="sessions at once; over it, the one not used for longest is ended",
        ),
    ] = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key and not self.certificate:
            raise ValueError("key is set without certificate")
