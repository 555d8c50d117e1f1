"""``twisted-net call``: sends one command to a command server and prints the answer."""

# mypy: disallow-untyped-calls=False
# The base class of the options is untyped.

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.usage import Options, UsageError

from twisted_net.cli.command_line import parse_or_exit, print_error
from twisted_net.cli.named_files import read_authorities, read_named_file
from twisted_net.cli.numbers import out_of_bounds, seconds
from twisted_net.cli.run import run_until_done
from twisted_net.commands.arguments import split_arguments
from twisted_net.errors import CallError, CallRefused, CommandError
from twisted_net.net.characters import printable_json
from twisted_net.net.reactor import Reactor
from twisted_net.tcp.client import CommandClient, server_endpoint
from twisted_net.tcp.limits import ClientSettings

DEFAULT_PORT = 8888

REFUSED = 1
"""Exit status if the server answered with an error, which is printed like any answer."""

UNANSWERED = 2
"""Exit status if there is no answer; standard error has the reason."""


class ClientOptions(Options):
    """
    Options of the clients: how to connect to a server.

    Credentials are read from a file: all users of a machine can see its command lines.
    """

    synopsis = "Usage: twisted-net console [options] HOST[:PORT]"
    longdesc = (
        "Sends the lines that you type, and shows answers and events. Leave it with Ctrl-D or "
        "quit. The default port is 8888."
    )
    optFlags: ClassVar[list[list[Any]]] = [  # Any: as usage.Options has them
        ["tls", None, "use TLS, and verify the certificate with the CAs of this machine"],
    ]
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as above
        ["ca", None, None, "use TLS, and trust only the authorities in this PEM file"],
        ["auth-file", None, None, "file with credentials: a token, or a user and a password"],
        ["timeout", "t", 30.0, "seconds to wait for an answer", seconds("timeout")],
    ]

    def parseArgs(self, address: str) -> None:  # type: ignore[override]  # fixed arity
        """Take the arguments that are not options."""
        self.host, self.port = parse_address(address)

    def client(self, reactor: Reactor) -> CommandClient:
        """
        Return the client that the options describe.

        :raises UsageError: for a file that cannot be used, or a value out of bounds.
        """
        try:
            settings = ClientSettings(call_timeout=self["timeout"])
        except ValueError as error:
            raise out_of_bounds(error, call_timeout="timeout") from None
        endpoint = server_endpoint(reactor, self.host, self.port, self._tls())
        return CommandClient(reactor, endpoint, settings, self._credentials())

    def _tls(self) -> IOpenSSLClientConnectionCreator | None:
        if not self["tls"] and self["ca"] is None:
            return None
        from twisted_net.net.tls_policy import TlsPolicy

        policy = TlsPolicy(authorities=None if self["ca"] is None else read_authorities(self["ca"]))
        return policy.creatorForNetloc(self.host.rstrip(".").encode("idna"), self.port)

    def _credentials(self) -> list[str]:
        if self["auth-file"] is None:
            return []
        try:
            return split_arguments(read_named_file(self["auth-file"]).strip())
        except CommandError as error:
            raise UsageError(f"{self['auth-file']}: {error}") from None


class CallOptions(ClientOptions):
    """Options of ``call``: how to connect to a server, and the command to send."""

    synopsis = "Usage: twisted-net call [options] HOST[:PORT] COMMAND [arguments ...]"
    longdesc = (
        "Sends one command and prints the answer, one line of JSON. The default port is 8888. "
        "Exit status: 0 for success, 1 for an error answer, 2 for no answer."
    )

    def parseArgs(self, address: str, command: str, *arguments: str) -> None:  # type: ignore[override]  # more arguments
        """Take the arguments that are not options."""
        super().parseArgs(address)
        self.words = (command, *arguments)


def parse_address(address: str) -> tuple[str, int]:
    """
    Split ``host``, ``host:port``, ``::1`` or ``[::1]:port`` into host and port.

    :raises UsageError: for an empty host or an invalid port.
    """
    host, colon, port = address.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = address, str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535) or not host:
        raise UsageError(f"{address!r} is not HOST[:PORT] with a port from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def call(arguments: Sequence[str]) -> None:
    """
    Send the command, print the answer as one line of JSON, and end the process.

    :raises SystemExit: with 0, :data:`REFUSED`, :data:`UNANSWERED` or
        :data:`~twisted_net.cli.run.INTERRUPTED`.
    """
    options = parse_or_exit(CallOptions(), "call", arguments)

    async def run(reactor: Reactor) -> None:
        try:
            async with options.client(reactor) as client:
                answer = await client.call(*options.words)
        except CallRefused as error:
            _print(error.answer)
            raise SystemExit(REFUSED) from None
        except (CallError, UsageError, ValueError) as error:
            print_error("call", error)
            raise SystemExit(UNANSWERED) from None
        _print(answer)

    run_until_done(run)


def _print(answer: object) -> None:
    sys.stdout.write(printable_json(msgspec.json.encode(answer).decode()) + "\n")
