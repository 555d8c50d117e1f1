"""
A load generator: many connections or datagrams under way, every answer compared.

It may take as much processor time as the server does, and so be what limits the rate. That is why
benchmarks look at the processor time of the server, and at the rate only beside it.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import ExitStack
from types import TracebackType

from attrs import define, field, frozen

from benchmarks.contestants import PATIENCE, Exchange

AT_ONCE = 100
"""Connections that are opened before the server is asked whether it has them."""


class WrongAnswer(Exception):
    """A server answered with something else than before, or with nothing."""


@frozen
class Load:
    """
    What came of a load.

    :param requests: asked and answered.
    :param seconds: from the first request to the last answer.
    :param times: seconds of the round trips, each of one request or of one batch.
    """

    requests: int
    seconds: float
    times: list[float]

    def percentile(self, share: float) -> float:
        """Give the milliseconds that *share* of the round trips do not exceed."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


@define(eq=False)
class Clients:
    """
    Connections to one server, each of which sends a batch of requests once it has all answers.

    A context that closes them. Each is answered once before it counts as open.

    :param depth: requests in a batch, which is one segment.
    """

    port: int
    exchange: Exchange
    depth: int = 1
    _answer: bytes = field(init=False)
    _epoll: select.epoll = field(init=False, factory=select.epoll)
    _sockets: list[socket.socket] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self._answer = self.exchange.answer(self.port)

    def __enter__(self) -> Clients:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._epoll.close()
        for client in self._sockets:
            client.close()

    def open(self, count: int) -> None:
        """Open so many more connections."""
        while count:
            block = []
            for _ in range(min(count, AT_ONCE)):
                client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(client)
                block.append(client)
                client.sendall(self.exchange.request)
            for client in block:
                answer = b""
                while len(answer) < len(self._answer):
                    answer += (piece := client.recv(65_536))
                    if not piece:
                        break
                self._compare(answer, self._answer)
                client.setblocking(False)
                self._epoll.register(client, select.EPOLLIN)
            count -= len(block)

    def run(self, seconds: float) -> Load:
        """
        Ask for so long, and wait for the last answers.

        :raises WrongAnswer: at the first answer that is not the one.
        """
        request, answer = self.exchange.request * self.depth, self._answer * self.depth
        size = len(answer) + 1
        times: list[float] = []
        parts: dict[int, bytes] = {}
        # Bound here: the loop runs some hundred thousand times a second.
        read, write, clock, poll = os.read, os.write, time.perf_counter, self._epoll.poll
        count = under_way = len(self._sockets)
        first = clock()
        began = {}
        for client in self._sockets:
            began[client.fileno()] = clock()
            client.send(request)
        end = first + seconds
        while under_way:
            events = poll(PATIENCE, count)
            if not events:
                raise WrongAnswer(f"{under_way} connections have no answer in {PATIENCE:g} s")
            for fd, _ in events:
                data = read(fd, size)
                if data != answer:
                    whole = parts.pop(fd, b"") + data
                    if data and len(whole) < len(answer) and answer.startswith(whole):
                        parts[fd] = whole
                        continue
                    self._compare(whole, answer)
                now = clock()
                times.append(now - began[fd])
                if now < end:
                    began[fd] = now
                    write(fd, request)
                else:
                    under_way -= 1
        return Load(len(times) * self.depth, clock() - first, times)

    def _compare(self, got: bytes, answer: bytes) -> None:
        if got != answer:
            raise WrongAnswer(f"{got[:200]!r} instead of {answer[:200]!r}")


def ask_datagrams(port: int, window: int, seconds: float) -> Load:
    """
    Keep so many datagrams under way to a port, for so long; each has a text of its own.

    :raises WrongAnswer: for an answer that belongs to none of them, or that does not come.
    """
    times: list[float] = []
    clock = time.perf_counter
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", port))
        began: dict[bytes, float] = {}
        first = clock()
        end = first + seconds
        for number in range(window):
            began[b"ECHO: hello %d" % number] = clock()
            client.send(b"hello %d" % number)
        number = window
        while began:
            try:
                answer = client.recv(2048)
            except TimeoutError:
                raise WrongAnswer(f"{len(began)} datagrams have no answer") from None
            now = clock()
            if (sent := began.pop(answer, None)) is None:
                raise WrongAnswer(f"{answer[:200]!r} answers nothing that was asked")
            times.append(now - sent)
            if now < end:
                began[b"ECHO: hello %d" % number] = now
                client.send(b"hello %d" % number)
                number += 1
    return Load(len(times), clock() - first, times)


def ask_from_many(port: int, clients: int, seconds: float) -> Load:
    """
    Have so many clients ask a port, each anew once it has its answer, for so long.

    :raises WrongAnswer: for an answer to another's datagram, or one that does not come.
    """
    times: list[float] = []
    read, write, clock = os.read, os.write, time.perf_counter
    began: dict[int, float] = {}
    asked: dict[int, bytes] = {}
    with ExitStack() as opened:
        epoll = opened.enter_context(select.epoll())
        first = clock()
        end = first + seconds
        for number in range(clients):
            client = opened.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            client.connect(("127.0.0.1", port))
            epoll.register(client, select.EPOLLIN)
            asked[client.fileno()] = b"hello %d" % number
            began[client.fileno()] = clock()
            client.send(asked[client.fileno()])
        while began:
            events = epoll.poll(PATIENCE, clients)
            if not events:
                raise WrongAnswer(f"{len(began)} clients have no answer in {PATIENCE:g} s")
            for fd, _ in events:
                answer = read(fd, 2048)
                if answer != b"ECHO: " + asked[fd]:
                    raise WrongAnswer(f"{answer[:200]!r} instead of {b'ECHO: ' + asked[fd]!r}")
                now = clock()
                times.append(now - began[fd])
                if now < end:
                    began[fd] = now
                    asked[fd] = b"hello %d" % len(times)
                    write(fd, asked[fd])
                else:
                    del began[fd]
        return Load(len(times), clock() - first, times)


def ask_in_bursts(port: int, burst: int, seconds: float) -> Load:
    """
    Have one client send so many datagrams at once, again when it has all answers, for so long.

    :raises WrongAnswer: for one that is not the next answer, or does not come.
    """
    asked = [b"hello %d" % number for number in range(burst)]
    expected = [b"ECHO: " + text for text in asked]
    times: list[float] = []
    clock = time.perf_counter
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", port))
        first = now = clock()
        while now < first + seconds:
            for text in asked:
                client.send(text)
            for text in expected:
                try:
                    answer = client.recv(2048)
                except TimeoutError:
                    raise WrongAnswer(f"no {text!r} in {PATIENCE:g} s") from None
                if answer != text:
                    raise WrongAnswer(f"{answer[:200]!r} instead of {text!r}")
            before, now = now, clock()
            times.append(now - before)
        return Load(len(times) * burst, now - first, times)
