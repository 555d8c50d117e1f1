"""A device that speaks CoAP: ``python examples/coap_device.py [PORT]``."""

from __future__ import annotations

import sys
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net.coap import CoapServer, listen_coap
from twisted_net.commands import Commands


async def main(reactor: Any, port: str = "5683") -> None:  # Any: a reactor has many interfaces
    """Serve one light until Ctrl-C."""
    commands = Commands()
    light = "off"

    @commands.command(safe=True)
    def led() -> str:
        """Whether the light is on."""
        return light

    @commands.command()
    def switch(state: Literal["on", "off"]) -> str:
        """Switch the light."""
        nonlocal light
        light = state
        server.notify("led")
        return light

    server = CoapServer(reactor, commands, observable=["LED"])
    listening = listen_coap(reactor, server, int(port))
    address = listening.getHost()
    print(f"listening on {address.host}:{address.port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
