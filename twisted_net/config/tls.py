"""Settings of TLS and DTLS: certificates of servers and of clients, and which each accepts."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from twisted_net.config.record import Record


class TlsSettings(Record, frozen=True):
    """
    TLS of one listener; it is enabled by ``certificate`` or ``folder``.

    Certificates of 90 days are usually renewed 30 days before they expire: a warning two weeks
    before means that renewal fails, and leaves time to fix it.

    :raises ValueError: for settings that contradict each other.
    """

    certificate: Annotated[
        str,
        Meta(description="PEM file: certificate, chain and, unless key is set, private key"),
    ] = ""
    key: Annotated[str, Meta(description="PEM file with the private key")] = ""
    folder: Annotated[
        str, Meta(description="folder with <host>.pem, or <host>/fullchain.pem and privkey.pem")
    ] = ""
    client_ca: Annotated[
        str,
        Meta(description="PEM file with the CAs of client certificates; unset: request none"),
    ] = ""
    client_certificate: Annotated[
        Literal["required", "optional"],
        Meta(description="whether clients must have a certificate, if client_ca is set"),
    ] = "required"
    warn_days: Annotated[
        int,
        Meta(
            ge=0,
            le=3650,
            description="days before expiry from which a certificate is logged",
        ),
    ] = 14

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key and not self.certificate:
            raise ValueError("key is set without certificate")
        if self.client_certificate == "optional" and not self.client_ca:
            raise ValueError("client_certificate is set without client_ca")
        if self.client_ca and not self.enabled:
            raise ValueError("client_ca is set without certificate or folder")

    @property
    def enabled(self) -> bool:
        """Whether TLS is enabled."""
        return bool(self.certificate or self.folder)


class ClientTlsSettings(Record, frozen=True):
    """
    TLS or DTLS of a client: which servers it trusts, and its own certificate.

    Without a file of authorities it trusts those of the system; with one, no others. Certificates
    of servers are not verified only for tests: whoever is on the way reads and changes all then.

    :raises ValueError: for settings that contradict each other.
    """

    ca: Annotated[
        str,
        Meta(description="PEM file of trusted authorities for servers; default: the system's"),
    ] = ""
    certificate: Annotated[
        str,
        Meta(description="PEM file: the certificate, its chain, and its key unless key is set"),
    ] = ""
    key: Annotated[str, Meta(description="PEM file with the key of the certificate")] = ""
    verify: Annotated[
        bool,
        Meta(description="whether to verify the server's certificate and name; false for tests"),
    ] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key and not self.certificate:
            raise ValueError("key is set without certificate")
        if self.ca and not self.verify:
            raise ValueError("ca has no effect, as verify is false")
