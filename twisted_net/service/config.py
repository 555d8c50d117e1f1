"""Everything that an operator can set, in one record, and where its values come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from msgspec import Meta
from msgspec import field as default

from twisted_net.auth.users import AuthSettings
from twisted_net.coap.settings import DEFAULT_PORT, SECURE_PORT, CoapLimits
from twisted_net.config.loader import Layers, Loaded
from twisted_net.config.record import Record
from twisted_net.discovery.settings import DiscoverySettings
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.http.settings import FetchSettings, HttpSettings
from twisted_net.net.addresses import is_local
from twisted_net.ops.slowlog import SlowLogSettings
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener_settings import Listener, check_interface
from twisted_net.topics import TopicSettings
from twisted_net.udp.groups import check_family
from twisted_net.udp.limits import DatagramLimits, GroupSettings
from twisted_net.udp.socket_spec import BoundSocket, SocketSpec, parse_socket_spec
from twisted_net.udp.socket_spec import check_interface as check_datagram_interface

PREFIX = "TWISTED_NET_"
"""What the names of our environment variables begin with; no other use is made of such names."""

Port = Annotated[int, Meta(ge=0, le=65_535, description="port; 0 for any that is free")]

Interface = Annotated[
    str,
    Meta(description='numeric address to listen on; "" for all of IPv4, "::" for all of IPv6 too'),
]


class TcpSettings(Limits, frozen=True):
    """
    The command server, ``[tcp]``: where it listens, beside its limits.

    Host and port are those of the original server, whose only handler is the ``acknowledge``
    fallback. 4096 is what Linux allows a queue of connections to be since 5.4; a burst of
    clients beyond the usual 50 then connects without a second's wait.
    """

    enabled: Annotated[bool, Meta(description="whether commands are served over TCP")] = True
    interface: Interface = "127.0.0.1"
    port: Port = 8888
    backlog: Annotated[
        int, Meta(ge=1, le=65_535, description="connections that may wait to be accepted")
    ] = 4096
    fallback: Annotated[
        Literal["none", "acknowledge"],
        Meta(description="what answers a line that is no command; none: it is refused"),
    ] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interface(self, self.interface)


class UdpDtlsSettings(DtlsSettings, frozen=True):
    """
    The datagram server over DTLS, ``[udp.dtls]``: where it listens, beside its certificates.

    Datagrams over DTLS have no port of their own that others would know; this is the one below
    that of ``[udp]``.
    """

    interface: Interface = "127.0.0.1"
    port: Port = 9998

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interface(self, self.interface)


class CoapDtlsSettings(DtlsSettings, frozen=True):
    """The CoAP server over DTLS, ``[coap.dtls]``: where it listens, beside its certificates."""

    interface: Interface = "127.0.0.1"
    port: Port = SECURE_PORT

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interface(self, self.interface)


class UdpGroupSettings(GroupSettings, frozen=True):
    """
    The groups of the datagram server, ``[udp.multicast]``.

    Half a second keeps the answers of a hundred servers apart, and a person from waiting.
    """

    leisure: Annotated[
        float, Meta(ge=0, le=600, description="seconds over which answers to a group are spread")
    ] = 0.5


class UdpSettings(DatagramLimits, frozen=True):
    """
    The datagram server, ``[udp]``: where it listens, beside its limits.

    Host and port are those of the original server. Over DTLS it is served where ``dtls`` has a
    certificate, whether or not ``enabled`` opens the port without.

    :raises ValueError: for a socket that cannot be, or where none is left.
    """

    enabled: Annotated[bool, Meta(description="whether datagrams are served over UDP")] = True
    interface: Interface = "127.0.0.1"
    port: Port | None = 9999
    sockets: Annotated[
        tuple[str, ...],
        Meta(description="further sockets, as udp:9999:interface=[::1]:rcvbuf=4M, fd:3, systemd:0"),
    ] = ()
    multicast: UdpGroupSettings = default(default_factory=UdpGroupSettings)
    dtls: UdpDtlsSettings = default(default_factory=UdpDtlsSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            check_datagram_interface(self.interface)
        except ValueError as error:
            raise ValueError(f"UdpSettings.{error}") from None
        for i, socket in enumerate(self.sockets):
            try:
                parse_socket_spec(socket)
            except ValueError as error:
                raise ValueError(f"UdpSettings.sockets[{i}]: {error}") from None
        if self.enabled and not self.socket_specs:
            raise ValueError("port is none, and there are no sockets: set one, or enabled = false")
        if self.port is None and self.multicast.groups:
            raise ValueError("UdpSettings.multicast.groups need a port, which is none")
        _check_family(self, self.multicast, self.interface)

    @property
    def socket_specs(self) -> tuple[SocketSpec, ...]:
        """All sockets: that of ``port`` first, where there is one."""
        own = () if self.port is None else (SocketSpec(BoundSocket(self.port, self.interface)),)
        return (*own, *map(parse_socket_spec, self.sockets))


class CoapSettings(CoapLimits, frozen=True):
    """
    The CoAP server, ``[coap]``: where it listens, beside its limits.

    Nobody who upgrades has a new port opened; who wants CoAP enables it. The port is that of
    RFC 7252. Over DTLS (``coaps``) it is served where ``dtls`` has a certificate, whether or not
    ``enabled`` opens the port without.
    """

    enabled: Annotated[bool, Meta(description="whether commands are served over CoAP")] = False
    interface: Interface = "127.0.0.1"
    port: Port = DEFAULT_PORT
    multicast: GroupSettings = default(default_factory=GroupSettings)
    dtls: CoapDtlsSettings = default(default_factory=CoapDtlsSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interface(self, self.interface)
        _check_family(self, self.multicast, self.interface)


class Config(Record, frozen=True):
    """
    The whole configuration; ``Config()`` is what runs where nothing is set.

    Ten seconds to drain are well within the 90 that systemd waits before it kills; ``docker
    stop`` waits only ten, and wants less here or more there. Clients are ended over up to half of
    that time, so that they do not all come to the next server at once. Ten threads are what
    Twisted's own pool has.

    :raises ValueError: where nothing is left to serve, or others than this machine without users.
    """

    commands: Annotated[
        tuple[str, ...],
        Meta(description="registries of own commands, each as module:name"),
    ] = ()
    drain_timeout: Annotated[
        float,
        Meta(ge=0, le=86_400, description="seconds that clients have to get their answers at stop"),
    ] = 10.0
    drain_rate: Annotated[
        float,
        Meta(gt=0, description="connections ended a second at stop; more where time is short"),
    ] = 2000.0
    threads: Annotated[
        int, Meta(ge=1, le=1000, description="threads for blocking commands and name look-ups")
    ] = 10
    listeners: Annotated[
        tuple[str | Listener, ...],
        Meta(description="further places to serve commands: endpoint descriptions or tables"),
    ] = ()
    tcp: TcpSettings = default(default_factory=TcpSettings)
    topics: TopicSettings = default(default_factory=TopicSettings)
    slowlog: SlowLogSettings = default(default_factory=SlowLogSettings)
    udp: UdpSettings = default(default_factory=UdpSettings)
    discovery: DiscoverySettings = default(default_factory=DiscoverySettings)
    coap: CoapSettings = default(default_factory=CoapSettings)
    auth: AuthSettings = default(default_factory=AuthSettings)
    http: HttpSettings = default(default_factory=HttpSettings)
    fetch: FetchSettings = default(default_factory=FetchSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        enabled = self.tcp.enabled or self.udp.enabled or self.coap.enabled
        secure = self.udp.dtls.enabled or self.coap.dtls.enabled
        if not enabled and not secure and not self.listeners:
            raise ValueError("tcp.enabled and udp.enabled are both false: nothing is served")
        for i, listener in enumerate(self.further_listeners):
            if not listener.placed:
                raise ValueError(f"listeners[{i}]: port, path or endpoint must be set")
            try:
                listener.limits_over(self.tcp)
            except ValueError as error:
                raise ValueError(f"listeners[{i}]: {error}") from None
        self._check_protection()

    def _check_protection(self) -> None:
        if self.auth.required:
            if self.coap.enabled:
                raise ValueError("coap.enabled is true, but CoAP has no logins, and auth asks them")
            if self.coap.dtls.enabled and not self.coap.dtls.client_ca:
                raise ValueError(
                    "coap.dtls.client_ca is not set, but auth asks for logins, and over CoAP a "
                    "client's certificate is its login"
                )
            return
        public = [
            f"listeners[{i}]"
            for i, listener in enumerate(self.further_listeners)
            if _serves_others(listener)
        ]
        if self.tcp.enabled and not is_local(self.tcp.interface):
            public.insert(0, "tcp.interface")
        if self.coap.dtls.enabled and not is_local(self.coap.dtls.interface):
            public.append("coap.dtls.interface")
        if public and not self.auth.open:
            raise ValueError(
                f"{', '.join(public)}: other machines would be served, and there are no users: "
                "set auth.users, or auth.open = true to let everybody do everything"
            )
        if self.coap.enabled and not is_local(self.coap.interface) and not self.auth.open:
            raise ValueError(
                "coap.interface: other machines would be served, and CoAP has no logins: serve "
                "users over DTLS (coap.dtls), or set auth.open = true to let everybody do "
                "everything"
            )

    @property
    def further_listeners(self) -> tuple[Listener, ...]:
        """Those beside the one of ``[tcp]``, each as a record."""
        return tuple(
            Listener(endpoint=listener) if isinstance(listener, str) else listener
            for listener in self.listeners
        )


def _check_family(record: Record, multicast: GroupSettings, interface: str) -> None:
    try:
        check_family(multicast.groups, interface)
    except ValueError as error:
        raise ValueError(f"{type(record).__name__}.{error}") from None


def _serves_others(listener: Listener) -> bool:
    """
    Whether a listener can be reached from other machines.

    Of descriptions those of Twisted's own TCP and TLS endpoints are read; behind any other the
    server finds out when a client comes.
    """
    if listener.path:
        return False
    if not listener.endpoint:
        return not is_local(listener.interface)
    parts = re.split(r"(?<!\\):", listener.endpoint)
    interfaces = [part.removeprefix("interface=") for part in parts if "interface=" in part]
    interface = interfaces[-1].replace("\\", "") if interfaces else ""
    return parts[0] in ("tcp", "tcp4", "tcp6", "ssl", "tls") and not is_local(interface)


def load_config(
    file: tuple[str, str] | None,
    environ: Mapping[str, str],
    options: Mapping[str, str],
    mistakes: Iterable[str] = (),
) -> Loaded[Config]:
    """
    Make the configuration out of a file, the environment and options; later ones win.

    :param file: its name and its text, which is TOML.
    :param environ: all of the environment; a variable of ours is ``TWISTED_NET_TCP__PORT``.
    :param options: texts by the names of options without their hyphens: ``tcp-port``.
    :param mistakes: those made before, such as a file that cannot be read.
    :raises ConfigError: with these and with all mistakes in the three layers.
    """
    layers = Layers(Config(), PREFIX)
    for mistake in mistakes:
        layers.add_mistake(mistake)
    if file is not None:
        name, text = file
        layers.add_toml(text, name)
    layers.add_environment(environ)
    layers.add_options(options)
    return layers.load()
