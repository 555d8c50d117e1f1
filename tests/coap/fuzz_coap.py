"""
Feeds everything that reads datagrams: ``python -m tests.coap.fuzz_coap``.

It runs for a minute, or as libFuzzer's options say (``-max_total_time=600``), and ends with an
error at the first exception that leaves. Then each input that went a new way, and each that took
long, is fed again without instrumentation, as a datagram of at most :data:`LONGEST` bytes: the
worst processor time of each reader is printed, and is an error above :data:`MOST_SECONDS`. It
needs atheris (PyPI).
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType, ModuleType
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from twisted_net.coap import (
    blockwise,
    codec,
    messages,
    observe,
    resources,
    responses,
    server,
    topics,
    uris,
)
from twisted_net.coap.blockwise import (
    Block,
    BlockDownload,
    RequestAssembler,
    RequestBodyTooLarge,
    RequestIncomplete,
    TransferTable,
)
from twisted_net.coap.codec import (
    CoapMessage,
    CoapRequestOptions,
    Code,
    Option,
    Type,
    encode_message,
    parse_message,
)
from twisted_net.coap.errors import MalformedMessage
from twisted_net.coap.resources import RequestRefused, command_arguments, link_format
from twisted_net.coap.server import CoapServer
from twisted_net.coap.uris import parse_uri
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CoapError, CommandError
from twisted_net.net.addresses import Source
from twisted_net.udp import responder
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.responder import DatagramResponder

MODULES = [
    blockwise,
    codec,
    messages,
    observe,
    resources,
    responder,
    responses,
    server,
    topics,
    uris,
]
"""What libFuzzer watches, to find inputs that go new ways."""

LONGEST = 1024
"""Bytes of the inputs."""

MOST_SECONDS = 0.001
"""Processor time that one input of :data:`LONGEST` bytes may cost one reader."""

MOST_FOR_STRANGERS = 3
"""Times the bytes of a datagram that one may get who has not proved its address."""

SOURCES: list[Source] = [("127.0.0.1", 1), ("192.0.2.1", 1)]
"""One on this machine, and a stranger."""

COMMANDS = standard_commands()


class Nowhere:
    """
    A transport whose datagrams arrive nowhere.

    :ivar sent: bytes of them.
    """

    def __init__(self) -> None:
        self.sent = 0

    def write(self, datagram: bytes, addr: Source) -> None:
        parse_message(datagram)
        self.sent += len(datagram)


def feed_codec(data: bytes) -> None:
    """Read a message, and write it again as it was."""
    with contextlib.suppress(MalformedMessage):
        message = parse_message(data)
        if parse_message(encode_message(message)) != message:
            raise AssertionError(f"{message!r} is written as another")


def feed_options(data: bytes) -> None:
    """Read what follows a header as the options of a request, and the blocks among them."""
    with contextlib.suppress(MalformedMessage):
        options = CoapRequestOptions(parse_message(b"\x40\x01\x00\x00" + data).options)
        hash(options.key)
        for value in (options.block1, options.block2):
            if value is not None:
                with contextlib.suppress(ValueError):
                    Block.parse(value)


def feed_blocks(data: bytes) -> None:
    """Put bodies together of blocks, as a server and as a client: 4 bytes say which block."""
    uploads = RequestAssembler(TransferTable[bytearray](4, 2048, 60.0), 1024)
    download = BlockDownload(1024)
    for position in range(0, len(data), 20):
        value, payload = data[position : position + 3], data[position + 4 : position + 20]
        with contextlib.suppress(ValueError, RequestIncomplete, RequestBodyTooLarge):
            uploads.add(SOURCES[0], b"", Block.parse(value), payload, None, position)
        answer = CoapMessage(
            Type.ACK, Code.CONTENT, options=[(Option.BLOCK2, value)], payload=payload
        )
        with contextlib.suppress(CoapError):
            download.receive(answer)


def feed_uri(data: bytes) -> None:
    """Read a URI."""
    with contextlib.suppress(CoapError):
        parse_uri("coap://" + data.decode(errors="replace"))


def feed_links(data: bytes) -> None:
    """Filter the list of resources: each line is a filter."""
    with contextlib.suppress(RequestRefused):
        link_format(COMMANDS, ["stats"], data.decode(errors="replace").split("\n"))


def feed_arguments(data: bytes) -> None:
    """Read a payload as the arguments of a command, as text and as JSON."""
    for form in (b"", b"\x32"):
        options = CoapRequestOptions([(Option.URI_PATH, b"echo"), (Option.CONTENT_FORMAT, form)])
        with contextlib.suppress(CommandError, RequestRefused):
            command_arguments(options, data)


def feed_responder(data: bytes) -> None:
    """Have the plain datagram server answer."""
    answer = DatagramResponder(DatagramLimits()).answer(data, SOURCES[0], 0.0, lambda: 0.0)
    if answer is not None and len(answer) > 4096 + len(b"ECHO: "):
        raise AssertionError(f"an answer of {len(answer)} bytes")


def feed_server(data: bytes) -> int:
    """
    Have a CoAP server answer one datagram, from either peer, then let all its timers run out.

    :return: bytes that a stranger was sent, whose address may be forged.
    """
    for source in SOURCES:
        server, clock, nowhere = _server()
        server.receive(data, source)
        clock.pump([100] * 3)
        server.stopProtocol()
    if nowhere.sent > MOST_FOR_STRANGERS * len(data):
        raise AssertionError(f"{nowhere.sent} bytes for {len(data)}")
    return nowhere.sent


def feed_conversation(data: bytes) -> None:
    """Have a CoAP server answer many datagrams: each has its length in front, in one byte."""
    server, clock, _ = _server()
    position = 0
    while position < len(data):
        length = data[position] & 0x7F
        group = data[position] >= 0xC0
        source = SOURCES[data[position] >> 7]
        position += 1
        server.receive(data[position : position + length], source, group)
        position += length
        clock.advance(1)
    clock.pump([100] * 5)
    server.stopProtocol()


READERS: dict[str, Callable[[bytes], None]] = {
    "codec": feed_codec,
    "options": feed_options,
    "blocks": feed_blocks,
    "URI": feed_uri,
    "link filters": feed_links,
    "arguments": feed_arguments,
    "plain datagram": feed_responder,
}
"""What an input is one piece for. The whole server is timed apart, without its making."""


def feed(data: bytes) -> int:
    """Feed one input to everything; give what :func:`feed_server` does."""
    for reader in READERS.values():
        reader(data)
    feed_conversation(data)
    return feed_server(data)


def seconds_of(call: Callable[[], object]) -> float:
    """Return the least processor time of a few runs: what the call costs where nothing disturbs."""
    best = float("inf")
    for _ in range(7):
        began = time.thread_time()
        call()
        best = min(best, time.thread_time() - began)
    return best


def slowest(inputs: list[bytes]) -> dict[str, tuple[float, bytes]]:
    """Return the worst processor time of each reader, with the input that it is for."""
    worst: dict[str, tuple[float, bytes]] = {}
    for data in inputs:
        for name, reader in READERS.items():
            seconds = seconds_of(partial(reader, data))
            worst[name] = max(worst.get(name, (0.0, b"")), (seconds, data))
        for source in SOURCES:
            best = float("inf")
            for _ in range(7):
                server, _, _ = _server()
                began = time.thread_time()
                server.receive(data, source)
                best = min(best, time.thread_time() - began)
                server.stopProtocol()
            worst["CoAP server"] = max(worst.get("CoAP server", (0.0, b"")), (best, data))
    return worst


def long_inputs() -> list[bytes]:
    """Make the inputs that one would try first: as much of each thing as fits."""
    head = b"\x40\x01\x00\x01"
    room = LONGEST - len(head)
    post = b"\x40\x02\x00\x02\xb4echo\xff"
    words = LONGEST - len(post)
    inputs = [
        head + b"\x00" * room,  # empty options of number 0
        head + b"\xb0" + b"\x00" * (room - 1),  # a path of empty segments
        head + b"\xb1a" + b"\x01a" * (room // 2 - 1),  # of short ones
        head + b"\xd0\x02" + b"\x00" * (room - 2),  # queries
        head + b"\x10" * room,  # each option after the other
        head + b"\x60" + b"\x00" * (room - 1),  # one option again and again
        head + b"\xbb.well-known\x04core" + b"\x43a=*" + b"\x03a=*" * (room // 4 - 6),
        head + b"\xbb.well-known\x04core" + b"\x4d\x80href=" + b"*" * 134,
        post + b"a " * (words // 2),
        post + b'"' * words,
        post + b'"\\' * (words // 2),
        b"\x40\x02\x00\x02\xb4echo\x11\x32\xff" + b"[" * (words - 2),
        b"\x40\x02\x00\x02\xb4echo\x11\x32\xff[" + b"0," * (words // 2 - 2) + b"0]",
        b"\x40\x02\x00\x02\xb4echo\x11\x32\xff[" + b'"",' * (words // 3 - 2) + b'""]',
        b"\x40\x01\x00\x02\xb4help" + b"\x4d\xffa" + b"a" * 267,
        b"a" * LONGEST,
        b"%41" * (LONGEST // 3),
        b"h/" + b"/" * (LONGEST - 2),
        b"h?" + b"&" * (LONGEST - 2),
        b"[" * LONGEST,
        b"a=*\n" * (LONGEST // 4),
        b"\n".join([b"href=/*"] * 8),
        head + b"\xbb.well-known\x04core" + b"\x47href=/*" + b"\x07href=/*" * (room // 8 - 4),
        "é".encode() * (LONGEST // 2),
        b" " * LONGEST,
    ]
    return [data[:LONGEST] for data in inputs]


def _server() -> tuple[CoapServer, Clock, Nowhere]:
    clock = Clock()
    server = CoapServer(cast(IReactorTime, clock), COMMANDS, chance=lambda: 0.5)
    nowhere = Nowhere()
    server.transport = nowhere  # type: ignore[assignment]  # a fake
    # Bugs of handlers are logged and answered: here they are to be seen.
    server.log.failure = _fail  # type: ignore[method-assign]
    return server, clock, nowhere


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Go through the functions of a module, and those of its classes."""
    for owner in (module, *(item for item in vars(module).values() if isinstance(item, type))):
        for item in vars(owner).values():
            if isinstance(item, FunctionType) and item.__module__ == module.__name__:
                yield item


def _fail(*args: object, **fields: object) -> None:
    raise AssertionError("a handler failed") from sys.exc_info()[1]


def fuzz(corpus: Path, words: list[str]) -> None:
    """Run libFuzzer until its time is over; inputs that take longer than any before are kept."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # optional

    longest = [0.0]

    def feed_and_time(data: bytes) -> None:
        began = time.thread_time()
        feed(data)
        seconds = time.thread_time() - began
        if seconds > longest[0]:
            longest[0] = seconds
            (corpus / f"slow-{seconds:.6f}").write_bytes(data)

    for module in MODULES:
        for function in _functions(module):
            atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *words, str(corpus)], feed_and_time)
    atheris.Fuzz()


def main() -> None:
    """Fuzz in a process of its own, as libFuzzer ends the process, and time what it found."""
    words = sys.argv[1:]
    if words[:1] == ["--into"]:
        fuzz(Path(words[1]), words[2:])
        return
    with TemporaryDirectory() as folder:
        for number, data in enumerate(long_inputs()):
            (Path(folder) / f"long-{number}").write_bytes(data)
        limits = [f"-max_len={LONGEST}", *(words or ["-max_total_time=60"])]
        done = subprocess.run(
            [sys.executable, "-m", "tests.coap.fuzz_coap", "--into", folder, *limits],
            stderr=subprocess.PIPE,
            text=True,
        )
        runs = re.findall(r"Done (\d+) runs in (\d+) second", done.stderr)
        if done.returncode or not runs:
            sys.exit(done.stderr)
        inputs = [path.read_bytes()[:LONGEST] for path in Path(folder).iterdir()]
    print(f"{runs[0][0]} inputs in {runs[0][1]} s: no exception left")  # noqa: T201
    worst = slowest(inputs)
    print(f"Worst processor time of {len(inputs)} inputs of up to {LONGEST} bytes")  # noqa: T201
    for name, (seconds, data) in worst.items():
        print(f"  {name:16}{seconds * 1e3:8.3f} ms  {data[:40]!r} ({len(data)} bytes)")  # noqa: T201
    if max(worst.values())[0] > MOST_SECONDS:
        sys.exit(f"an input costs more than {MOST_SECONDS * 1e3:g} ms")


if __name__ == "__main__":
    main()
