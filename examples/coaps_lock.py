"""
A lock that opens for users with a certificate, over CoAP and DTLS.

``python examples/coaps_lock.py CERTIFICATE CLIENT_CA [PORT]``: two PEM files, the first with the
key in it. ``docs/howto/dtls.rst`` says how to make them.
"""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net.coap import CoapLimits, CoapServer, limits_over_dtls
from twisted_net.commands import Commands, Request
from twisted_net.dtls import DtlsServer, DtlsSettings, listen_dtls
from twisted_net.net import DatagramReactor


async def main(
    reactor: DatagramReactor,
    certificate: str,
    client_ca: str,
    port: str = "5684",
) -> None:
    """Serve one lock until Ctrl-C."""
    commands = Commands()

    @commands.command()
    def unlock(request: Request) -> str:
        """Open the door."""
        return f"open for {request.session.identity}"

    settings = DtlsSettings(certificate=certificate, client_ca=client_ca)
    coap = CoapServer(reactor, commands, limits_over_dtls(CoapLimits(), settings), observable=[])
    certificates = DtlsServer.make_certificates(settings)
    dtls = DtlsServer(reactor, coap, certificates, settings, ended=coap.peer_lost)
    address = listen_dtls(reactor, dtls, int(port)).getHost()
    print(f"listening on {address.host}:{address.port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
