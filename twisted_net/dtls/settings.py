"""Settings of DTLS: limits and certificates of a server and of a client."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from twisted_net.config.tls import ClientTlsSettings, TlsSettings

Mtu = Annotated[
    int,
    Meta(
        ge=256,
        le=16_384,
        description="longest datagram sent, in bytes, without IP and UDP headers",
    ),
]


class DtlsSettings(TlsSettings, frozen=True):
    """
    DTLS on one UDP port: certificates and limits of a server.

    DTLS is off unless a certificate or a folder is set.

    An MTU of 1232 bytes fits IPv6's minimum MTU of 1280, and holds 1 KiB of application data. A new
    handshake (0.7 ms) costs less than keeping about 70 KiB for a device that has been silent for
    ten minutes. A handshake that loses four datagrams in a row takes less than 30 seconds; one
    with a long chain of certificates receives 16 KiB. Devices behind one address reconnect
    together after a power cut, and share 16 handshakes.
    """

    psk: Annotated[
        str,
        Meta(description="TOML file with pre-shared keys, by identity, in hexadecimal"),
    ] = ""
    mtu: Mtu = 1232
    max_sessions: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="concurrent sessions; over it, the one silent for longest is ended",
        ),
    ] = 1000
    max_handshakes: Annotated[
        int,
        Meta(ge=1, le=100_000, description="concurrent handshakes; over it, new ones are refused"),
    ] = 100
    max_handshakes_per_address: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="concurrent handshakes of one IPv4 address or IPv6 /64; over it, new ones"
            " are refused",
        ),
    ] = 16
    max_handshake_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            le=1 << 24,
            description="bytes that a peer may send before its handshake is complete",
        ),
    ] = 64 << 10
    handshake_timeout: Annotated[
        float, Meta(gt=0, le=3600, description="longest handshake, in seconds")
    ] = 30.0
    idle_timeout: Annotated[
        float,
        Meta(gt=0, le=1e7, description="seconds of silence after which a session is ended"),
    ] = 600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.psk and not self.enabled:
            raise ValueError("psk is set without certificate or folder")


class DtlsClientSettings(ClientTlsSettings, frozen=True):
    """
    Certificates or a pre-shared key, verification and limits of a DTLS client.

    With ``psk`` there are no certificates: the key proves either side to the other.

    :raises ValueError: for settings that contradict each other.
    """

    psk: Annotated[
        str,
        Meta(description="TOML file with our identity and pre-shared key, in hexadecimal"),
    ] = ""
    mtu: Mtu = 1232
    handshake_timeout: Annotated[
        float, Meta(gt=0, le=3600, description="longest handshake, in seconds")
    ] = 30.0
    max_sessions: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="concurrent sessions; over it, the least recently used one is ended",
        ),
    ] = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.psk and (self.ca or self.certificate or not self.verify):
            raise ValueError("psk is set beside ca, certificate or verify, which have no effect")
