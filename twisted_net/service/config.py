"""The service's configuration: one record with the settings of all parts, and its loading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta
from msgspec import field as default

from twisted_net.auth.users import AuthSettings
from twisted_net.coap.settings import DEFAULT_PORT, SECURE_PORT, CoapLimits
from twisted_net.config.loader import Layers, Loaded
from twisted_net.config.record import Record
from twisted_net.config.type_checks import check_arguments
from twisted_net.discovery.settings import DiscoverySettings
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.http.settings import FetchSettings, HttpSettings
from twisted_net.net.addresses import is_local
from twisted_net.net.memory_ledger import MemorySettings
from twisted_net.ops.long_turns import LatencySettings
from twisted_net.ops.slowlog import SlowLogSettings
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener_settings import Listener, check_interface
from twisted_net.topics.settings import TopicSettings
from twisted_net.udp.groups import check_family
from twisted_net.udp.limits import DatagramLimits, GroupSettings
from twisted_net.udp.socket_spec import BoundSocket, SocketSpec, parse_socket_spec
from twisted_net.udp.socket_spec import check_interface as check_datagram_interface

PREFIX = "TWISTED_NET_"
"""Prefix of the environment variables that are settings; any other variable with it is an error."""

Port = Annotated[int, Meta(ge=0, le=65_535, description="port number; 0 for any free port")]

Interface = Annotated[
    str,
    Meta(description='IP address to listen on; "" for all of IPv4, "::" for all of IPv4 and IPv6'),
]


class TcpSettings(Limits, frozen=True):
    """
    The command server, ``[tcp]``: its address and its limits.

    The default address is that of the original server, whose only handler is the ``acknowledge``
    fallback. The default backlog is the maximum of Linux since 5.4 (``somaxconn``): with the usual
    50, a client in a larger burst of connections waits a second until its SYN is sent again.
    """

    enabled: Annotated[bool, Meta(description="serve commands over TCP")] = True
    interface: Interface = "127.0.0.1"
    port: Port = 8888
    backlog: Annotated[
        int, Meta(ge=1, le=65_535, description="limit of connections waiting to be accepted")
    ] = 4096
    fallback: Annotated[
        Literal["none", "acknowledge"],
        Meta(description="handler of lines that are not commands; none: answer with an error"),
    ] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interface(self, self.interface)


class UdpDtlsSettings(DtlsSettings, frozen=True):
    """
    The datagram server over DTLS, ``[udp.dtls]``: its address and its certificates.

    No port is registered for this service; the default is the one below that of ``[udp]``.
    """

    interface: Interface = "127.0.0.1"
    port: Port = 9998

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interface(self, self.interface)


class CoapDtlsSettings(DtlsSettings, frozen=True):
    """The CoAP server over DTLS, ``[coap.dtls]``: its address and its certificates."""

    interface: Interface = "127.0.0.1"
    port: Port = SECURE_PORT

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interface(self, self.interface)


class UdpGroupSettings(GroupSettings, frozen=True):
    """
    The multicast groups of the datagram server, ``[udp.multicast]``.

    Half a second is enough to spread the answers of a hundred servers, and a person hardly
    notices it.
    """

    leisure: Annotated[
        float,
        Meta(ge=0, le=600, description="seconds over which answers to a group are randomly spread"),
    ] = 0.5


class UdpSettings(DatagramLimits, frozen=True):
    """
    The datagram server, ``[udp]``: its sockets and its limits.

    The default address is that of the original server. Datagrams are also served over DTLS if
    ``dtls`` has a certificate, whether or not ``enabled`` is set.

    :raises ValueError: for an invalid socket, or if it is enabled without a socket.
    """

    enabled: Annotated[bool, Meta(description="serve datagrams over UDP")] = True
    interface: Interface = "127.0.0.1"
    port: Port | None = 9999
    sockets: Annotated[
        tuple[str, ...],
        Meta(
            description="more sockets, such as udp:9999:interface=[::1]:rcvbuf=4M, fd:3, systemd:0"
        ),
    ] = ()
    handler: Annotated[
        str, Meta(description="your own function that answers datagrams, as module:name")
    ] = ""
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
            raise ValueError(
                "port is none and sockets is empty: set one of them, or enabled = false"
            )
        if self.port is None and self.multicast.groups:
            raise ValueError("UdpSettings.multicast.groups requires a port, but port is none")
        _check_family(self, self.multicast, self.interface)

    @property
    def socket_specs(self) -> tuple[SocketSpec, ...]:
        """All sockets: that of ``port`` first, if it is set."""
        own = () if self.port is None else (SocketSpec(BoundSocket(self.port, self.interface)),)
        return (*own, *map(parse_socket_spec, self.sockets))


class CoapSettings(CoapLimits, frozen=True):
    """
    The CoAP server, ``[coap]``: its address and its limits.

    It is disabled by default, so that an upgrade opens no new port. The default port is that of
    RFC 7252 §12.6. CoAP is also served over DTLS (``coaps``) if ``dtls`` has a certificate,
    whether or not ``enabled`` is set.
    """

    enabled: Annotated[bool, Meta(description="serve commands over CoAP")] = False
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
    The configuration of the whole service; ``Config()`` has the defaults.

    Ten seconds to drain are well within the 90 after which systemd kills a process; ``docker
    stop`` waits only ten: there, reduce this or increase that. Connections are closed over up to
    half of that time, so that the clients do not all connect to the next server at once. Ten
    threads are the default of Twisted's pool, which serves your own code alone: blocking commands,
    passwords and look-ups of names have threads of their own.

    :raises ValueError: if nothing is served, or if other machines are served without users.
    """

    commands: Annotated[
        tuple[str, ...],
        Meta(description="your own commands and applications, each as module:name"),
    ] = ()
    drain_timeout: Annotated[
        float,
        Meta(ge=0, le=86_400, description="seconds to finish pending answers when stopping"),
    ] = 10.0
    drain_rate: Annotated[
        float,
        Meta(
            gt=0, description="connections closed per second when stopping; more if time is short"
        ),
    ] = 2000.0
    threads: Annotated[
        int, Meta(ge=1, le=1000, description="threads of the reactor's own pool, for your own code")
    ] = 10
    listeners: Annotated[
        tuple[str | Listener, ...],
        Meta(description="more listeners for commands: endpoint descriptions or tables"),
    ] = ()
    memory: MemorySettings = default(default_factory=MemorySettings)
    tcp: TcpSettings = default(default_factory=TcpSettings)
    topics: TopicSettings = default(default_factory=TopicSettings)
    slowlog: SlowLogSettings = default(default_factory=SlowLogSettings)
    latency: LatencySettings = default(default_factory=LatencySettings)
    udp: UdpSettings = default(default_factory=UdpSettings)
    discovery: DiscoverySettings = default(default_factory=DiscoverySettings)
    coap: CoapSettings = default(default_factory=CoapSettings)
    auth: AuthSettings = default(default_factory=AuthSettings)
    http: HttpSettings = default(default_factory=HttpSettings)
    fetch: FetchSettings = default(default_factory=FetchSettings)
    app: Annotated[
        dict[str, dict[str, Any]],  # Any: each application checks its own
        # They may have passwords, which only the application knows.
        Meta(description="settings of your applications, a table for each", extra={"secret": True}),
    ] = default(default_factory=dict)

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
            dtls = self.coap.dtls
            if dtls.enabled and not dtls.client_ca and not dtls.psk:
                raise ValueError(
                    "coap.dtls.client_ca and psk are not set, but auth requires logins: CoAP "
                    "clients log in with certificates or pre-shared keys"
                )
            return
        public = [
            f"listeners[{i}]"
            for i, listener in enumerate(self.further_listeners)
            if _is_remotely_reachable(listener)
        ]
        if self.tcp.enabled and not is_local(self.tcp.interface):
            public.insert(0, "tcp.interface")
        if self.coap.dtls.enabled and not is_local(self.coap.dtls.interface):
            public.append("coap.dtls.interface")
        if public and not self.auth.open:
            raise ValueError(
                f"{', '.join(public)}: reachable from other machines, but there are no users: "
                "set auth.users, or set auth.open = true to allow all commands to all clients"
            )
        if self.coap.enabled and not is_local(self.coap.interface) and not self.auth.open:
            raise ValueError(
                "coap.interface: reachable from other machines, but CoAP has no logins: use DTLS "
                "(coap.dtls), or set auth.open = true to allow all commands to all clients"
            )

    @property
    def further_listeners(self) -> tuple[Listener, ...]:
        """The listeners of ``listeners``, each as a record."""
        return tuple(
            Listener(endpoint=listener) if isinstance(listener, str) else listener
            for listener in self.listeners
        )


def _check_family(record: Record, multicast: GroupSettings, interface: str) -> None:
    try:
        check_family(multicast.groups, interface)
    except ValueError as error:
        raise ValueError(f"{type(record).__name__}.{error}") from None


def _is_remotely_reachable(listener: Listener) -> bool:
    """
    Return whether other machines can reach a listener.

    Descriptions of Twisted's own TCP and TLS endpoints are parsed. For any other endpoint the
    answer is false; the server then checks the address of each client that connects.
    """
    if listener.path:
        return False
    if not listener.endpoint:
        return not is_local(listener.interface)
    parts = re.split(r"(?<!\\):", listener.endpoint)
    interfaces = [part.removeprefix("interface=") for part in parts if "interface=" in part]
    interface = interfaces[-1].replace("\\", "") if interfaces else ""
    return parts[0] in ("tcp", "tcp4", "tcp6", "ssl", "tls") and not is_local(interface)


@check_arguments
def load_config(
    file: tuple[str, str] | None,
    environ: Mapping[str, str],
    options: Mapping[str, str],
    mistakes: Iterable[str] = (),
) -> Loaded[Config]:
    """
    Load the configuration from a file, the environment and options; later ones override.

    :param file: its name and its text, which is TOML.
    :param environ: the whole environment; the settings are named as ``TWISTED_NET_TCP__PORT``.
    :param options: values by option name without leading hyphens: ``tcp-port``.
    :param mistakes: mistakes found before, such as a file that cannot be read.
    :return: the configuration, and the origin of each value.
    :raises ConfigError: with these and all mistakes of the three layers.
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
