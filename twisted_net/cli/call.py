"""``twisted-net call``: asks a command server one thing, from a shell."""

# mypy: disallow-untyped-calls=False
# The class of options that these derive from has no types.

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.usage import Options, UsageError

from twisted_net.cli.run import run_to_the_end
from twisted_net.commands.arguments import split_arguments
from twisted_net.errors import CallError, CallRefused, CommandError
from twisted_net.tcp.client import CommandClient, server_endpoint
from twisted_net.tcp.limits import ClientSettings

DEFAULT_PORT = 8888

REFUSED = 1
"""Exit status where the server answered with an error, which is printed as any answer is."""

UNANSWERED = 2
"""Exit status where there is no answer; standard error says why."""


class ClientOptions(Options):
    """
    How to reach a server.

    Credentials come from a file, as everybody on a machine can see the words of a command line.
    """

    synopsis = "Usage: twisted-net console [options] HOST[:PORT]"
    optFlags: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        ["tls", None, "speak TLS, and believe the certificates that this machine trusts"],
    ]
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as above
        ["ca", None, None, "speak TLS, and believe the certificates in this PEM file alone"],
        ["auth-file", None, None, "file with what follows AUTH: a token, or a user and a password"],
        ["timeout", "t", 30.0, "seconds for an answer", float],
    ]

    def parseArgs(self, address: str) -> None:  # type: ignore[override]  # of any form
        """Take what is no option."""
        self.host, self.port = parse_address(address)

    def client(self, reactor: Any) -> CommandClient:  # Any: reactors have no one type
        """
        Make the client that the options describe.

        :raises UsageError: for a file that cannot be used.
        """
        try:
            settings = ClientSettings(call_timeout=self["timeout"])
        except ValueError as error:
            raise UsageError(str(error)) from None
        endpoint = server_endpoint(reactor, self.host, self.port, self._tls())
        return CommandClient(reactor, endpoint, settings, self._credentials())

    def _tls(self) -> IOpenSSLClientConnectionCreator | None:
        if not self["tls"] and self["ca"] is None:
            return None
        from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

        trust = None
        if self["ca"] is not None:
            pem = _read(self["ca"])
            try:
                trust = trustRootFromCertificates([Certificate.loadPEM(pem.encode())])
            except Exception as error:  # whatever OpenSSL has to say of it
                raise UsageError(f"{self['ca']}: this is no certificate in PEM: {error}") from None
        made: IOpenSSLClientConnectionCreator = optionsForClientTLS(self.host, trust)
        return made

    def _credentials(self) -> list[str]:
        if self["auth-file"] is None:
            return []
        try:
            return split_arguments(_read(self["auth-file"]).strip())
        except CommandError as error:
            raise UsageError(f"{self['auth-file']}: {error}") from None


class CallOptions(ClientOptions):
    """How to reach a server, and what to ask it."""

    synopsis = "Usage: twisted-net call [options] HOST[:PORT] COMMAND [arguments ...]"

    def parseArgs(self, address: str, command: str, *arguments: str) -> None:  # type: ignore[override]  # more of them
        """Take what is no option."""
        super().parseArgs(address)
        self.words = (command, *arguments)


def parse_address(address: str) -> tuple[str, int]:
    """
    Take ``host``, ``host:port``, ``::1`` or ``[::1]:port`` apart.

    :raises UsageError: for a port that is none.
    """
    host, colon, port = address.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = address, str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65_535) or not host:
        raise UsageError(f"{address!r} is no HOST[:PORT]; a port is from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def call(arguments: Sequence[str]) -> None:
    """
    Call a server, print its answer as one line of JSON, and end the process.

    :raises SystemExit: with 0, :data:`REFUSED`, :data:`UNANSWERED` or
        :data:`~twisted_net.cli.run.INTERRUPTED`.
    """
    options = parsed(CallOptions(), "call", arguments)

    async def run(reactor: Any) -> None:  # Any: as above
        try:
            async with options.client(reactor) as client:
                answer = await client.call(*options.words)
        except CallRefused as error:
            _print(error.answer)
            raise SystemExit(REFUSED) from None
        except (CallError, UsageError, ValueError) as error:
            sys.stderr.write(f"twisted-net call: {error}\n")
            raise SystemExit(UNANSWERED) from None
        _print(answer)

    run_to_the_end(run)


def parsed(
    options: Any, name: str, arguments: Sequence[str]
) -> Any:  # Any: one of ours, given back
    """
    Parse the arguments of a sub-command.

    :raises SystemExit: with :data:`UNANSWERED`, for mistakes, which are then on standard error.
    """
    try:
        options.parseOptions(list(arguments))
    except UsageError as error:
        sys.stderr.write(f"twisted-net {name}: {error}; see twisted-net {name} --help\n")
        raise SystemExit(UNANSWERED) from None
    return options


def _print(answer: object) -> None:
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
