"""``twisted-net coap``: makes one CoAP request, or observes a resource, from a shell."""

# mypy: disallow-untyped-calls=False
# The class of options has no types.

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO, ClassVar, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.python.usage import UsageError

from twisted_net.cli.call import REFUSED, UNANSWERED
from twisted_net.cli.command_line import parse_or_exit, print_error
from twisted_net.cli.display import ProgressDisplay, terminal_body
from twisted_net.cli.mixed_options import MixedOptions
from twisted_net.cli.named_files import TLS_OPTIONS, check_tls_options
from twisted_net.cli.numbers import integer, out_of_bounds, seconds
from twisted_net.cli.run import INTERRUPTED, run_until_done
from twisted_net.coap.client import CoapClient
from twisted_net.coap.client_response import CoapResponse, Observation
from twisted_net.coap.codec import JSON, LINK_FORMAT, TEXT, Code, Option, code_name
from twisted_net.coap.settings import CoapClientSettings
from twisted_net.dtls.settings import DtlsClientSettings
from twisted_net.errors import CoapError, ConfigError
from twisted_net.net.reactor import DatagramReactor

METHODS = ("get", "fetch", "post", "put", "delete", "observe")

FORMATS = {
    "text": TEXT,
    "link-format": LINK_FORMAT,
    "xml": 41,
    "octet-stream": 42,
    "json": JSON,
    "cbor": 60,
}
"""Content formats by name; others are written as numbers (RFC 7252 §12.3)."""

DEREGISTER_TIMEOUT = 3.0
"""Seconds to wait for the server to confirm the end of an observation."""


class CoapOptions(MixedOptions):
    """Options and arguments of ``twisted-net coap``."""

    synopsis = f"Usage: twisted-net coap {'|'.join(METHODS)} [options] URI [PAYLOAD]"
    longdesc = (
        "PAYLOAD - stands for the standard input. The body of the response is written to standard"
        " output, everything else to standard error. Exit status: 0 for success, 1 for an error"
        " response, 2 for no response."
    )
    optFlags: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        ["non", "N", "send each message once, without acknowledgement (non-confirmable)"],
        ["report", "R", "send one message and want no response (No-Response, RFC 7967)"],
        ["verbose", "v", "show the code and the options of each response"],
        ["insecure", None, "coaps: do not verify the server's certificate"],
    ]
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as above
        ["content-format", "f", None, f"format of the payload: {', '.join(FORMATS)} or a number"],
        ["accept", "a", None, "format requested of the response, as in --content-format"],
        [
            "timeout",
            "t",
            120.0,
            "seconds for the response, including all blocks",
            seconds("timeout"),
        ],
        [
            "block-size",
            "b",
            1024,
            "bytes of a block, in both directions: 16, 32 ... 1024",
            integer("block-size"),
        ],
        ["output", "o", None, "file for the body of the response, written once it is complete"],
        ["psk", None, None, "coaps: TOML file with our identity and pre-shared key"],
        ["ca", None, None, "coaps: trust only the authorities in this PEM file"],
        ["cert", None, None, "coaps: PEM file with our certificate and its key"],
        [
            "key",
            None,
            None,
            "coaps: PEM file with the key of --cert, if it is separate",
        ],
        ["count", "c", 0, "states after which to stop observing; 0 for no limit", integer("count")],
    ]

    def parseArgs(self, method: str, uri: str, payload: str | None = None) -> None:  # type: ignore[override]  # of any form
        """Take the arguments."""
        if method not in METHODS:
            raise UsageError(f"{method} is not one of {', '.join(METHODS)}")
        if payload is not None and method in ("get", "observe"):
            raise UsageError(f"{method} has no payload")
        self.method, self.uri, self.payload = method, uri, payload

    def postOptions(self) -> None:
        """Check values and combinations."""
        self.content_format = _format(self["content-format"])
        self.accept = _format(self["accept"])
        if self["count"] < 0 or (self["count"] and self.method != "observe"):
            raise UsageError("--count is a number of states, and only for observe")
        single = self["non"] or self["output"] is not None or self.content_format is not None
        if self.method == "observe" and single:
            raise UsageError("--non, --output and --content-format are for single requests")
        if self["report"]:
            self._check_report()
        try:
            self.settings = CoapClientSettings(
                timeout=self["timeout"], block_size=self["block-size"]
            )
            self.tls = self._tls()
        except ValueError as error:
            raise out_of_bounds(error) from None

    def _check_report(self) -> None:
        if self.method in ("get", "fetch", "observe"):
            raise UsageError(f"--report is for post, put and delete, not for {self.method}")
        for name in ("output", "accept"):
            if self[name] is not None:
                raise UsageError(f"--report has no response for --{name}")

    def _tls(self) -> DtlsClientSettings | None:
        check_tls_options(self)
        if self["psk"] == "":
            raise UsageError("--psk must name a file")
        given = [f"--{name}" for name in (*TLS_OPTIONS, "psk") if self[name]]
        if self["psk"] and len(given) > 1:
            raise UsageError("--psk is not for certificates and their verification")
        if not given:
            return None
        if not self.uri.lower().startswith("coaps:"):
            raise UsageError(f"{given[0]} is for coaps URIs")
        return DtlsClientSettings(
            ca=self["ca"] or "",
            certificate=self["cert"] or "",
            key=self["key"] or "",
            verify=not self["insecure"],
            psk=self["psk"] or "",
        )

    def body(self, stdin: BinaryIO) -> bytes:
        """Return the payload."""
        if self.payload == "-":
            return stdin.read()
        return os.fsencode(self.payload or "")


def _format(word: str | None) -> int | None:
    if word is None:
        return None
    number = FORMATS.get(word)
    if number is None:
        if not (word.isascii() and word.isdigit() and int(word) <= 0xFFFF):
            raise UsageError(f"{word} is not a content format: {', '.join(FORMATS)} or a number")
        number = int(word)
    return number


class CoapCommand:
    """
    One run of ``twisted-net coap``.

    :param body: of the request.
    :ivar status: the exit status so far.
    """

    def __init__(
        self,
        reactor: DatagramReactor,
        options: CoapOptions,
        body: bytes = b"",
        out: BinaryIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._body = body
        self._out = out or sys.stdout.buffer
        self._err = err or sys.stderr
        self.status = 0

    async def run(self) -> int:
        """
        Make the request, show the response, and return the exit status.

        Cancelling it closes the client.

        :raises UsageError: if a file cannot be read or written.
        :raises BrokenPipeError: if nobody reads standard output any more.
        """
        options = self._options
        try:
            client = CoapClient(self._reactor, options.settings, options.tls)
        except ConfigError as error:
            raise UsageError("; ".join(error.mistakes)) from None
        try:
            if options.method == "observe":
                await self._observe(client)
            elif options["report"]:
                await client.report(
                    options.uri,
                    self._body,
                    method=Code[options.method.upper()],
                    content_format=options.content_format,
                )
            else:
                await self._request(client)
        except CancelledError:
            self.status = 0 if options.method == "observe" else INTERRUPTED
        except CoapError as error:
            self._print_error(str(error))
            self.status = UNANSWERED
        finally:
            await client.close()
        return self.status

    async def _request(self, client: CoapClient) -> None:
        options = self._options
        progress = ProgressDisplay(self._err, self._reactor.seconds)
        try:
            response = await client.request(
                Code[options.method.upper()],
                options.uri,
                self._body,
                content_format=options.content_format,
                accept=options.accept,
                confirmable=not options["non"],
                progress=progress,
            )
        finally:
            progress.end()
        self._show(response)

    async def _observe(self, client: CoapClient) -> None:
        options = self._options
        states = await client.observe(options.uri, accept=options.accept)
        try:
            shown = 0
            async for state in states:
                self._show(state, line=True)
                shown += 1
                if shown == options["count"]:
                    break
        finally:
            await self._stop(states)

    async def _stop(self, states: Observation) -> None:
        """Deregister at the server, within a timeout."""
        stopped = Deferred.fromCoroutine(states.stop())
        stopped.addTimeout(DEREGISTER_TIMEOUT, self._reactor)
        try:
            await stopped
        except (CoapError, DeferredTimeout, CancelledError):
            # The server learns of it by a Reset, or a timeout, of its next notification.
            states.cancel()

    def _show(self, response: CoapResponse, line: bool = False) -> None:
        """Print the body of a success, or the code and the diagnostic payload of an error."""
        if self._options["verbose"]:
            self._err.write(f"{code_name(response.code)}\n")
            for number, value in response.options:
                self._err.write(f"  {describe(number, value)}\n")
            self._err.flush()
        if not response.ok:
            self._print_error(f"{code_name(response.code)}: {response.text}".rstrip(": "))
            self.status = REFUSED
            return
        path = self._options["output"]
        if path is not None:
            try:
                with open(path, "wb") as file:
                    file.write(response.payload)
            except OSError as error:
                raise UsageError(f"{path}: {error.strerror}") from None
            return
        terminal = self._out.isatty()
        self._out.write(terminal_body(response.payload) if terminal else response.payload)
        # States are read line by line; and the prompt of a terminal begins a line.
        ends = response.payload.endswith(b"\n") or not response.payload
        if line or (not ends and terminal):
            self._out.write(b"\n")
        self._out.flush()

    def _print_error(self, sentence: str) -> None:
        """Print an error in one line, without control characters that a server may have sent."""
        shown = "".join(c if c.isprintable() else " " for c in sentence)
        self._err.write(f"twisted-net coap: {shown}\n")
        self._err.flush()


def describe(number: int, value: bytes) -> str:
    """Return an option as text: its name, and its value as text, number or hex."""
    try:
        option = Option(number)
    except ValueError:
        return f"{number}: {value.hex() or '(empty)'}"
    name = option.name.replace("_", "-").title()
    if option in _TEXTS:
        text = value.decode(errors="replace")
        return f"{name}: {''.join(c if c.isprintable() else ' ' for c in text)}"
    if option in _NUMBERS:
        return f"{name}: {int.from_bytes(value, 'big')}"
    if option in (Option.BLOCK1, Option.BLOCK2):
        bits = int.from_bytes(value, "big")
        return f"{name}: {bits >> 4}, {'more' if bits & 8 else 'last'}, {16 << (bits & 7)} bytes"
    return f"{name}: {value.hex() or '(empty)'}"


_TEXTS = (
    Option.URI_HOST,
    Option.URI_PATH,
    Option.URI_QUERY,
    Option.LOCATION_PATH,
    Option.LOCATION_QUERY,
)
_NUMBERS = (
    Option.OBSERVE,
    Option.URI_PORT,
    Option.CONTENT_FORMAT,
    Option.MAX_AGE,
    Option.ACCEPT,
    Option.SIZE1,
    Option.SIZE2,
)


def coap(arguments: Sequence[str]) -> None:
    """
    Run ``twisted-net coap``, and end the process.

    :raises SystemExit: with 0, :data:`REFUSED`, :data:`UNANSWERED` or
        :data:`~twisted_net.cli.run.INTERRUPTED`.
    """
    options = parse_or_exit(CoapOptions(), "coap", arguments)
    try:
        # Before the reactor runs: Ctrl-C could not stop it while this waits.
        body = options.body(sys.stdin.buffer)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None

    async def run(reactor: DatagramReactor) -> None:
        command = CoapCommand(reactor, options, body)
        try:
            await command.run()
        except UsageError as error:
            print_error("coap", error)
            command.status = UNANSWERED
        raise SystemExit(command.status)

    run_until_done(run)
