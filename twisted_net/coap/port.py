"""Port of a CoAP server."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorFDSet

from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import DEFAULT_PORT
from twisted_net.config.type_checks import check_arguments
from twisted_net.udp.port import CappedPort


@check_arguments
def listen_coap(
    reactor: IReactorFDSet,
    server: CoapServer,
    port: int = DEFAULT_PORT,
    interface: str = "127.0.0.1",
) -> CappedPort:
    """
    Open a UDP port for *server*, and return it.

    ``stopListening()`` of the port stops the server; once its Deferred fires, no socket and no
    timer is left. Call ``await server.drain(seconds)`` first to finish the commands that run.

    :param reactor: one that watches descriptors: epoll, asyncio, poll and select do.
    :param port: 0 for any free port.
    :param interface: a numeric address; ``""`` for all of IPv4, ``"::"`` for all of IPv6.
    :raises CannotListenError: if the port is taken, or the address is not of this machine.
    """
    limits = server.limits
    listening = CappedPort(
        port,
        server,
        interface,
        # One byte over the limit, to recognise longer datagrams.
        limits.max_datagram + 1,
        reactor,
        datagrams_per_turn=limits.datagrams_per_turn,
        receive_buffer=limits.receive_buffer,
        counts=server.datagrams,
    )
    listening.startListening()
    return listening
