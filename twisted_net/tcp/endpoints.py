"""Server endpoint ``fast:``, a TCP port whose connections send at once."""

from __future__ import annotations

from twisted.internet import defer
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.reactor import AnyReactor, full_reactor


@check_arguments
@implementer(IStreamServerEndpoint)
class FastServerEndpoint:
    """
    Listens as :func:`twisted_net.tcp.transport.listen_tcp` does.

    :param port: 0 for a free one.
    :param backlog: connections that may wait to be accepted; None for that function's default.
    :param interface: an IPv4 or IPv6 address; the empty string for all of IPv4.
    """

    def __init__(
        self,
        reactor: AnyReactor,
        port: int,
        backlog: int | None = None,
        interface: str = "",
    ) -> None:
        self._reactor = full_reactor(reactor)
        self._port = port
        self._backlog = backlog
        self._interface = interface

    def listen(self, protocolFactory: IProtocolFactory) -> defer.Deferred[IListeningPort]:
        """
        Listen.

        :return: fires with the port, or fails with CannotListenError.
        """
        # Not at the top: every run of twistd imports the plugins, for this service or another.
        from twisted_net.tcp.transport import BACKLOG, listen_tcp

        return defer.execute(
            listen_tcp,
            self._reactor,
            self._port,
            protocolFactory,
            BACKLOG if self._backlog is None else self._backlog,
            self._interface,
        )


@implementer(IPlugin, IStreamServerEndpointStringParser)
class FastServerParser:
    """Parser of ``fast:8888:interface=127.0.0.1:backlog=100``; only the port is required."""

    prefix = "fast"

    def parseStreamServer(  # type: ignore[override]  # all are strings, these are their names
        self, reactor: IReactorCore, port: str, interface: str = "", backlog: str | None = None
    ) -> FastServerEndpoint:
        """
        Return the endpoint that a description names.

        :raises ValueError: for a port or a backlog that is not a number.
        """
        limit = None if backlog is None else int(backlog)
        return FastServerEndpoint(reactor, int(port), limit, interface)
