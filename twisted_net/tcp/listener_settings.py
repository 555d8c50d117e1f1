"""Listener settings: where one listener beside that of ``[tcp]`` listens, and its layers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta
from msgspec import field as default

from twisted_net.config.record import Record
from twisted_net.config.tls import TlsSettings
from twisted_net.net.addresses import is_numeric
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.proxy_header import TrustedProxies

DEFAULT_BACKLOG = 4096
"""Connections that may wait to be accepted: the maximum of Linux since 5.4 (``somaxconn``)."""

PATH_LIMIT = 107
"""Bytes of the path of a Unix socket (``sun_path`` of Linux, unix(7), without its NUL)."""


class Listener(Record, frozen=True):
    """
    One more port at which commands are served.

    It listens at one of *port*, *path* and *endpoint*. Its layers are, in this order and each if it
    is set: a PROXY header, TLS, WebSocket. By default a Unix socket is accessible to the group of
    the service, and one for administration to its owner only.

    :raises ValueError: for settings that contradict each other.
    """

    port: Annotated[int, Meta(ge=0, le=65_535, description="TCP port; 0 for any that is free")] | (
        None
    ) = None
    interface: Annotated[
        str, Meta(description='numeric address for port; "" for all of IPv4, "::" for all')
    ] = "127.0.0.1"
    path: Annotated[str, Meta(description="file name of a Unix socket")] = ""
    mode: (
        Annotated[
            str,
            Meta(
                pattern="^0?[0-7]{3}$",
                description="permissions of the Unix socket, octal; else 660, or 600 with admin",
            ),
        ]
        | None
    ) = None
    admin: Annotated[
        bool,
        Meta(description="whether clients of this Unix socket may do everything without a login"),
    ] = False
    endpoint: Annotated[str, Meta(description="description of a Twisted server endpoint")] = ""
    backlog: Annotated[
        int, Meta(ge=1, le=65_535, description="connections that may wait to be accepted")
    ] = DEFAULT_BACKLOG
    proxy: Annotated[
        tuple[str, ...],
        Meta(description="proxies whose PROXY header is read: addresses, networks, unix"),
    ] = ()
    tls: TlsSettings = default(default_factory=TlsSettings)
    protocol: Annotated[
        Literal["lines", "websocket"], Meta(description="what carries the lines")
    ] = "lines"
    origins: Annotated[
        tuple[str, ...],
        Meta(description='web sites whose pages may use the WebSocket; "*" for all'),
    ] = ()
    limits: Annotated[
        dict[str, Any],  # Any: as Limits has them
        Meta(description="limits that differ from those of [tcp]"),
    ] = default(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum([self.port is not None, bool(self.path), bool(self.endpoint)]) > 1:
            raise ValueError("only one of port, path and endpoint may be set")
        if len(self.path.encode(errors="replace")) > PATH_LIMIT:
            raise ValueError(
                f"path must have at most {PATH_LIMIT} bytes, as the address of a Unix socket"
            )
        if self.admin and not self.path:
            raise ValueError("admin is true without path: only a Unix socket can be for it")
        if self.mode is not None and not self.path:
            raise ValueError("mode is set without path: only the file of a Unix socket has one")
        if (self.path or self.endpoint) and self.interface != "127.0.0.1":
            raise ValueError("interface is set without port: only a TCP port has one")
        if self.endpoint and self.backlog != DEFAULT_BACKLOG:
            raise ValueError("backlog is set with endpoint: its description may have one")
        if self.origins and self.protocol != "websocket":
            raise ValueError('origins are set, and protocol is not "websocket"')
        check_interface(self, self.interface)
        try:
            TrustedProxies(self.proxy)
        except ValueError as error:
            raise ValueError(f"proxy: {error}") from None
        self.limits_over(Limits())

    @property
    def placed(self) -> bool:
        """Whether *port*, *path* or *endpoint* is set; the default listener has none of them."""
        return self.port is not None or bool(self.path or self.endpoint)

    @property
    def permissions(self) -> int:
        """The permissions of the Unix socket's file, as a number."""
        return int(self.mode or ("600" if self.admin else "660"), 8)

    def limits_over(self, limits: Limits) -> Limits:
        """
        Return the limits of this listener: its own, and those of *limits* for the rest.

        :raises ValueError: for a limit that does not exist or is out of its bounds.
        """
        values = {name: getattr(limits, name) for name in Limits.__struct_fields__}
        for name in self.limits.keys() - values.keys():
            raise ValueError(f"limits: there is no limit {name}")
        try:
            return Limits(**values | self.limits)
        except ValueError as error:
            raise ValueError(f"limits.{str(error).removeprefix('Limits.')}") from None


def check_interface(record: Record, interface: str) -> None:
    """
    Check that an interface is an address: a host name would be looked up later, and may fail then.

    :raises ValueError: for anything but a numeric address and the empty string.
    """
    if interface and not is_numeric(interface):
        raise ValueError(
            f"{type(record).__name__}.interface must be a numeric address, such as "
            f'127.0.0.1 or ::1, or "", not {interface!r}'
        )
