"""What can be set for TLS, on whatever it runs: certificates, and whose certificates are asked."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from twisted_net.config.record import Record


class TlsSettings(Record, frozen=True):
    """
    TLS of one listener; there is none where neither a certificate nor a folder is named.

    Two weeks of warning leave time to mend a renewal that fails: certificates of 90 days are
    renewed 30 days before their end.

    :raises ValueError: for settings that contradict each other.
    """

    certificate: Annotated[
        str, Meta(description="PEM file: the certificate, then its chain; its key, unless in key")
    ] = ""
    key: Annotated[str, Meta(description="PEM file with the key of the certificate")] = ""
    folder: Annotated[
        str, Meta(description="folder with <host>.pem or <host>/fullchain.pem and privkey.pem")
    ] = ""
    client_ca: Annotated[
        str, Meta(description="PEM file with those who sign clients' certificates; none are asked")
    ] = ""
    client_certificate: Annotated[
        Literal["required", "optional"],
        Meta(description="whether a client without a certificate is refused"),
    ] = "required"
    warn_days: Annotated[
        int, Meta(ge=0, le=3650, description="days before its end that a certificate is logged")
    ] = 14

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key and not self.certificate:
            raise ValueError("key is set without certificate")
        if self.client_ca and not self.enabled:
            raise ValueError("client_ca is set without certificate or folder")

    @property
    def enabled(self) -> bool:
        """Whether there is TLS at all."""
        return bool(self.certificate or self.folder)
