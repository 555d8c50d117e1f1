"""
Feeds CoAP's parsers and a whole server: ``python -m tests.udp.fuzz_coap``.

It runs for a minute, or as libFuzzer's options say (``-max_total_time=600``), and ends with an
error at the first exception that leaves. It needs atheris (PyPI).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import cast

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from twisted_net.errors import CoapError
from twisted_net.standard import standard_commands
from twisted_net.udp import (
    blockwise,
    coap,
    coap_codec,
    coap_replies,
    coap_resources,
    messages,
    observe,
)
from twisted_net.udp.blockwise import Block
from twisted_net.udp.coap import CoapServer
from twisted_net.udp.coap_codec import RequestOptions, encode_message, parse_message
from twisted_net.udp.coap_uris import parse_uri
from twisted_net.udp.datagrams import Source
from twisted_net.udp.errors import MalformedMessage

MODULES = [blockwise, coap, coap_codec, coap_replies, coap_resources, messages, observe]
"""What libFuzzer watches, to find inputs that go new ways."""

SOURCES: list[Source] = [("127.0.0.1", 1), ("192.0.2.1", 1)]


class Nowhere:
    """A transport whose datagrams arrive nowhere."""

    def write(self, datagram: bytes, addr: Source) -> None:
        parse_message(datagram)


def feed(data: bytes) -> None:
    """Feed one input to everything that reads what comes from the network."""
    with contextlib.suppress(MalformedMessage):
        message = parse_message(data)
        if parse_message(encode_message(message)) != message:
            raise AssertionError(f"{message!r} is written as another")
        options = RequestOptions(message.options)
        for value in (options.block1, options.block2):
            if value is not None:
                with contextlib.suppress(ValueError):
                    Block.parse(value)
    with contextlib.suppress(CoapError):
        parse_uri("coap://" + data.decode(errors="replace"))
    feed_server(data)


def feed_server(data: bytes) -> None:
    """Feed a server with datagrams: each has its length in front, in one byte."""
    clock = Clock()
    server = CoapServer(cast(IReactorTime, clock), standard_commands(), chance=lambda: 0.5)
    server.transport = Nowhere()  # type: ignore[assignment]  # a fake
    # Bugs of handlers are logged and answered: here they are to be seen.
    server.log.failure = _fail  # type: ignore[method-assign]
    position = 0
    while position < len(data):
        length = data[position] & 0x7F
        group = data[position] >= 0xC0
        source = SOURCES[data[position] >> 7]
        position += 1
        server.take(data[position : position + length], source, group)
        position += length
        clock.advance(1)
    clock.pump([100] * 5)
    server.stopProtocol()


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Go through the functions of a module, and those of its classes."""
    for owner in (module, *(item for item in vars(module).values() if isinstance(item, type))):
        for item in vars(owner).values():
            if isinstance(item, FunctionType) and item.__module__ == module.__name__:
                yield item


def _fail(*args: object, **fields: object) -> None:
    raise AssertionError("a handler failed") from sys.exc_info()[1]


def main() -> None:
    """Run libFuzzer until its time is over."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # optional

    words = sys.argv if len(sys.argv) > 1 else [*sys.argv, "-max_total_time=60", "-max_len=1024"]
    for module in MODULES:
        for function in _functions(module):
            atheris.instrument_func(function)
    atheris.Setup(words, feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
