"""``twisted-net fetch``: makes one HTTP request from a shell, and reports how it went."""

# mypy: disallow-untyped-calls=False
# The class of options has no types.

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from secrets import token_hex
from typing import Any, BinaryIO, ClassVar, TextIO

from twisted.python.usage import UsageError

from twisted_net.cli.call import REFUSED, UNANSWERED
from twisted_net.cli.command_line import MISTAKE, parse_or_exit, print_error
from twisted_net.cli.display import ProgressDisplay, TerminalWriter
from twisted_net.cli.mixed_options import MixedOptions
from twisted_net.cli.named_files import (
    TLS_OPTIONS,
    check_tls_options,
    read_authorities,
    read_named_file,
)
from twisted_net.cli.numbers import integer, out_of_bounds, seconds
from twisted_net.cli.run import INTERRUPTED, run_until_done
from twisted_net.commands.arguments import split_arguments
from twisted_net.config.tls import ClientTlsSettings
from twisted_net.config.type_checks import checked_seconds
from twisted_net.errors import CommandError, ConfigError, FetchError
from twisted_net.http import (
    BearerToken,
    Client,
    DigestAuth,
    HttpSettings,
    RequestOptions,
    StreamedResponse,
    Timeouts,
    TransferProgress,
)
from twisted_net.http.cache import CacheSettings
from twisted_net.http.retry import Attempt, RetryPolicy
from twisted_net.net.characters import printable
from twisted_net.net.reactor import Reactor
from twisted_net.net.redaction import redact_url
from twisted_net.net.tls_policy import TlsPolicy

SILENCE = 30.0
"""Seconds without a header, or without a byte of a body, after which a call without a time ends."""

MAX_IN_MEMORY = 16 * 2**20
"""Bytes of a file that is sent, up to which it is read first, so that a retry can repeat it."""

_NO_LIMIT = 2**63 - 1


class FetchOptions(MixedOptions):
    """Options and arguments of ``twisted-net fetch``."""

    synopsis = "Usage: twisted-net fetch [options] URL"
    longdesc = (
        "Makes an HTTP request, follows redirects, and writes the body of the response to standard"
        " output. Sent are Accept: */*, User-Agent and Accept-Encoding, unless --header replaces"
        " them. Exit status: 0 for a response, 1 for one with an error status (400 and above), 2"
        " for none, or one that is not complete, 130 after Ctrl-C, 141 if nobody reads the output."
    )
    optFlags: ClassVar[list[list[Any]]] = [  # Any: as usage.Options wants them
        ["include", "i", "write the status and the header to standard output, before the body"],
        ["report", "r", "report attempts, redirects and the cache to standard error"],
        ["no-redirects", None, "do not follow redirects"],
        ["digest", None, "with --auth-file: Digest authentication (RFC 7616)"],
        ["insecure", None, "do not verify the server's certificate"],
    ]
    optParameters: ClassVar[list[list[Any]]] = [  # Any: as above
        ["method", "X", None, "method; by default GET, or POST with --data"],
        ["data", "d", None, "body: a text, @FILE for a file, or - for standard input"],
        [
            "output",
            "o",
            None,
            "file for the body, which is there once it is complete, and for no error status; - for"
            " standard output",
        ],
        [
            "timeout",
            "t",
            None,
            "seconds for all; by default 30 without any progress",
            seconds("timeout"),
        ],
        ["retries", None, 3, "repetitions of a request that failed", integer("retries")],
        [
            "auth-file",
            None,
            None,
            "file with credentials in one line: a token, or a user and a password",
        ],
        ["proxy", None, None, "URL of a proxy, or environment, for HTTP_PROXY and its like"],
        [
            "cache",
            None,
            None,
            "file that keeps responses for the next run; by default none is kept",
        ],
        ["ca", None, None, "trust only the authorities in this PEM file"],
        ["cert", None, None, "PEM file with our certificate and its key"],
        ["key", None, None, "PEM file with the key of --cert, if it is separate"],
    ]

    def __init__(self) -> None:
        self.headers: list[tuple[str, str | None]] = []
        super().__init__()

    def opt_header(self, line: str) -> None:
        """a field, as "Name: value"; may be repeated; "Name:" sends no such field"""
        name, colon, value = line.partition(":")
        if not colon:
            raise UsageError(f'--header: {line!r} is not like "Name: value"')
        self.headers.append((name.strip(), value.strip() or None))

    opt_H = opt_header

    def parseArgs(self, url: str) -> None:  # type: ignore[override]  # of any form
        """Take the arguments that are not options."""
        self.url = url

    def postOptions(self) -> None:
        """Check values and combinations."""
        self.method = self["method"] or ("GET" if self["data"] is None else "POST")
        if self["digest"] and self["auth-file"] is None:
            raise UsageError("--digest needs a user and a password: --auth-file")
        if self["output"] == "-":
            self["output"] = None
        check_tls_options(self)
        _check_cache_file(self["cache"])
        try:
            if self["timeout"] is not None:
                checked_seconds(self["timeout"], "--timeout")
            cache = CacheSettings(enabled=self["cache"] is not None, file=self["cache"])
            self.settings = HttpSettings(
                proxy=self["proxy"], retry=RetryPolicy(retries=self["retries"]), cache=cache
            )
        except ValueError as error:
            raise out_of_bounds(error, file="cache") from None

    def request(self, stdin: BinaryIO, files: ExitStack) -> RequestOptions:
        """
        Return the options of the call.

        :param files: closes what is opened here.
        :raises UsageError: for a file that cannot be used.
        """
        made: RequestOptions = {
            "headers": [("Accept", "*/*"), *self.headers]
            if all(name.lower() != "accept" for name, _ in self.headers)
            else self.headers,
            "timeout": self["timeout"],
            "allow_redirects": not self["no-redirects"],
            "max_body": _NO_LIMIT,
        }
        if self["timeout"] is None:
            made["timeout"] = Timeouts(total=None, headers=SILENCE, silence=SILENCE)
        if self["data"] == "-":
            made["data"] = stdin.read()
        elif self["data"] is not None and self["data"].startswith("@"):
            made["data"] = self._file(self["data"][1:], files)
        elif self["data"] is not None:
            made["data"] = os.fsencode(self["data"])
        if self["auth-file"] is not None:
            made["auth"] = self._credentials()
        return made

    def tls_policy(self) -> TlsPolicy | None:
        """
        Return what connects with TLS; None for what trusts the authorities of this machine.

        :raises UsageError: for a file that cannot be used.
        """
        if not any(self[name] for name in TLS_OPTIONS):
            return None
        authorities = None if self["ca"] is None else read_authorities(self["ca"])
        settings = ClientTlsSettings(
            certificate=self["cert"] or "", key=self["key"] or "", verify=not self["insecure"]
        )
        try:
            return TlsPolicy(settings, authorities=authorities)
        except ConfigError as error:
            # After the name of a setting, which is none here.
            raise UsageError("; ".join(one.partition(": ")[2] for one in error.mistakes)) from None

    def _file(self, path: str, files: ExitStack) -> bytes | BinaryIO:
        try:
            file = files.enter_context(open(path, "rb"))  # noqa: SIM115  # until the end
            known = os.fstat(file.fileno())
            if stat.S_ISREG(known.st_mode) and known.st_size <= MAX_IN_MEMORY:
                return file.read()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        return file

    def _credentials(self) -> tuple[str, str] | BearerToken | DigestAuth:
        path = self["auth-file"]
        wanted = "a user and a password" if self["digest"] else "a token, or a user and a password"
        text = read_named_file(path).strip()
        if "\n" in text:
            raise UsageError(f"{path}: must have one line: {wanted}")
        try:
            words = split_arguments(text)
            if len(words) == 1 and not self["digest"]:
                return BearerToken(words[0])
        except (CommandError, ValueError) as error:
            raise UsageError(f"{path}: {error}") from None
        if len(words) != 2:
            raise UsageError(f"{path}: must have {wanted}")
        return DigestAuth(*words) if self["digest"] else (words[0], words[1])


def _check_cache_file(path: str | None) -> None:
    """
    Check where the cache is to be.

    A cache whose file cannot be made fails no request: nobody would notice that there is none.

    :raises UsageError: for a folder, and for a file in a folder that there is not.
    """
    if path is None:
        return
    if os.path.isdir(path):
        raise UsageError(f"--cache: {path}: {os.strerror(errno.EISDIR)}")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise UsageError(f"--cache: {path}: {os.strerror(errno.ENOENT)}")


class FetchCommand:
    """
    One run of ``twisted-net fetch``.

    :param request: options of the call.
    """

    def __init__(
        self,
        reactor: Reactor,
        options: FetchOptions,
        request: RequestOptions,
        out: BinaryIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._request = request
        self._out = out or sys.stdout.buffer
        self._err = err or sys.stderr
        self._progress = ProgressDisplay(self._err, reactor.seconds, terminal_only=True)

    async def run(self) -> int:
        """
        Make the request, write the response, and return the exit status.

        :raises UsageError: for a value of an option that the client refuses, and for a file that
            cannot be written.
        :raises BrokenPipeError: if nobody reads the output any more.
        """
        options = self._options
        request: RequestOptions = {**self._request, "progress": self._note_progress}
        began = self._reactor.seconds()
        try:
            async with (
                Client(
                    self._reactor,
                    options.settings,
                    tls_policy=options.tls_policy(),
                    report=self._note_attempt,
                ) as client,
                client.stream(options.method, options.url, **request) as response,
            ):
                self._show_head(response)
                await self._write(response)
                self._report_end(response, self._reactor.seconds() - began)
        except FetchError as error:
            self._say(f"twisted-net fetch: {error}")
            return UNANSWERED
        except BrokenPipeError:
            raise
        except OSError as error:
            # The output cannot be written, or the file that is sent cannot be read.
            raise UsageError(error.strerror or str(error)) from None
        except (TypeError, ValueError) as error:
            raise UsageError(str(error).removeprefix("Client: ")) from None
        finally:
            self._progress.end()
        if response.status < 400:
            return 0
        answered = f"{redact_url(response.url)} answered {response.status} {response.reason}"
        self._say(f"twisted-net fetch: {answered.rstrip()}")
        return REFUSED

    def _show_head(self, response: StreamedResponse) -> None:
        if not self._options["include"]:
            return
        lines = [f"{response.status} {response.reason}".rstrip()]
        lines += [f"{name}: {value}" for name, value in response.headers.pairs]
        # Its fields may have any byte that the terminal could take for a control sequence.
        text = "".join(f"{printable(line)}\n" for line in [*lines, ""])
        self._out.write(text.encode())
        self._out.flush()

    async def _write(self, response: StreamedResponse) -> None:
        """Write the body to where it is wanted; that of an error status to no file."""
        path = self._options["output"]
        if path is None:
            await self._write_out(response)
        elif response.status < 400:
            try:
                await _write_file(response, path)
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                raise UsageError(f"{path}: {error.strerror}") from None

    async def _write_out(self, response: StreamedResponse) -> None:
        if not self._out.isatty():
            async for piece in response:
                self._out.write(piece)
                self._out.flush()
            return
        terminal = TerminalWriter()
        async for piece in response:
            # The bar and the body share the screen.
            self._progress.end()
            self._out.write(terminal.feed(piece))
            self._out.flush()
        self._out.write(terminal.feed(b"", final=True))
        self._out.flush()

    def _note_progress(self, progress: TransferProgress) -> None:
        # A body that goes to the terminal shows its progress by itself.
        if self._options["output"] is not None or not self._out.isatty():
            verb = "sent" if progress.direction == "upload" else "received"
            self._progress(verb, progress.done, progress.total)

    def _note_attempt(self, attempt: Attempt) -> None:
        if self._options["report"]:
            wait = "" if attempt.wait is None else f"; the next one in {attempt.wait:.3f} s"
            self._say(
                f"attempt {attempt.number}: {attempt.method} {attempt.url}: {attempt.outcome} after"
                f" {attempt.seconds:.3f} s{wait}"
            )

    def _report_end(self, response: StreamedResponse, elapsed: float) -> None:
        if not self._options["report"]:
            return
        followed = [*(hop.url for hop in response.history[1:]), response.url]
        for hop, url in zip(response.history, followed, strict=False):
            self._say(f"redirect: {hop.status} {redact_url(hop.url)} to {redact_url(url)}")
        source = "from the network"
        if response.age is not None:
            source = f"from the cache, {response.age:.0f} s old"
        attempts = f"{response.attempts} attempt{'' if response.attempts == 1 else 's'}"
        self._say(f"response: {response.status} {source}, {attempts}, {elapsed:.3f} s")
        if "cache-status" in response.headers:
            self._say(f"cache: {response.headers['cache-status']}")

    def _say(self, sentence: str) -> None:
        """Write a line to standard error, without control characters that a server has sent."""
        self._progress.end()
        self._err.write(f"{printable(sentence)}\n")
        self._err.flush()


async def _write_file(response: StreamedResponse, path: str) -> None:
    """Write a body to a file, which appears, or replaces another one, once it is complete."""
    if os.path.exists(path) and not os.path.isfile(path):
        # A device or a pipe, which is no file to replace.
        with open(path, "wb") as file:
            async for piece in response:
                file.write(piece)
        return
    # A name that nobody else has: another run may write to the same file.
    part = f"{path}.{token_hex(4)}.part"
    with open(part, "xb") as file:
        try:
            async for piece in response:
                file.write(piece)
            file.close()
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise


def fetch(arguments: Sequence[str]) -> None:
    """
    Run ``twisted-net fetch``, and end the process.

    :raises SystemExit: with 0, :data:`~twisted_net.cli.call.REFUSED`,
        :data:`~twisted_net.cli.call.UNANSWERED`,
        :data:`~twisted_net.cli.command_line.MISTAKE`, :data:`~twisted_net.cli.run.INTERRUPTED` or
        :data:`~twisted_net.cli.run.UNREAD`.
    """
    options = parse_or_exit(FetchOptions(), "fetch", arguments)
    with ExitStack() as files:
        try:
            # Before the reactor runs: Ctrl-C could not stop it while this waits.
            request = options.request(sys.stdin.buffer, files)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except UsageError as error:
            print_error("fetch", error)
            raise SystemExit(MISTAKE) from None

        async def run(reactor: Reactor) -> None:
            try:
                status = await FetchCommand(reactor, options, request).run()
            except UsageError as error:
                print_error("fetch", error)
                status = MISTAKE
            raise SystemExit(status)

        run_until_done(run)
