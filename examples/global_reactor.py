"""Serve from a script, around the global reactor: ``python examples/global_reactor.py``."""

from __future__ import annotations

from twisted.internet import reactor

from twisted_net.commands import standard_commands
from twisted_net.http import Fetcher
from twisted_net.tcp import CommandFactory, CommandPort, Listener
from twisted_net.udp import DatagramServer, listen_datagrams


def main() -> None:
    """Serve commands over TCP, FETCH among them, and datagrams, until Ctrl-C."""
    fetcher = Fetcher.guarded(reactor)
    factory = CommandFactory(reactor, standard_commands(fetcher.fetch))
    tcp = CommandPort(reactor, Listener(port=0), factory).listen()
    udp = listen_datagrams(reactor, DatagramServer(reactor), 0)
    reactor.addSystemEventTrigger("before", "shutdown", factory.drain, 10.0)
    print("listening on", tcp.getHost(), "and", udp.getHost(), flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
