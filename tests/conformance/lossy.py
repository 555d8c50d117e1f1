"""
Datagram proxy with reproducible loss, between a client and a server.

Whether the *n*-th copy of the *m*-th message of a direction is lost depends on the seed alone, and
not on time: a message that a slow machine retransmits needlessly does not change the loss of the
others.
"""

from __future__ import annotations

import random
import socket
from threading import Thread
from types import TracebackType
from typing import Literal

Direction = Literal["to server", "to client"]


def is_lost(seed: int, loss: float, direction: Direction, message: int, copy: int) -> bool:
    """Return whether one copy of a message is lost."""
    return random.Random(f"{seed} {direction} {message} {copy}").random() < loss


def attempts(seed: int, loss: float, exchange: int, limit: int = 5) -> int | None:
    """
    Return at which attempt an exchange succeeds, or None if it fails; exchanges do not overlap.

    :param limit: attempts before the client gives up: 1 + MAX_RETRANSMIT (RFC 7252 §4.8).
    """
    answers = 0
    for attempt in range(limit):
        if not is_lost(seed, loss, "to server", exchange, attempt):
            if not is_lost(seed, loss, "to client", exchange, answers):
                return attempt + 1
            answers += 1
    return None


class Lossy:
    """
    Forwards the datagrams of one client to a server, and back; use it with ``with``.

    :param server: port of the server on 127.0.0.1.
    :ivar uri: URI of the proxy, for the client.
    :ivar carried: datagrams received, by direction.
    :ivar lost: those of them that were not forwarded.
    """

    def __init__(self, server: int, seed: int, loss: float = 0.3) -> None:
        self._seed = seed
        self._loss = loss
        self._near = socket.socket(type=socket.SOCK_DGRAM)
        self._near.bind(("127.0.0.1", 0))
        self._far = socket.socket(type=socket.SOCK_DGRAM)
        self._far.connect(("127.0.0.1", server))
        self.uri = f"coap://127.0.0.1:{self._near.getsockname()[1]}"
        self._client: tuple[str, int] | None = None
        self._copies: dict[Direction, dict[bytes, list[int]]] = {"to server": {}, "to client": {}}
        self.carried: dict[Direction, int] = {"to server": 0, "to client": 0}
        self.lost: dict[Direction, int] = {"to server": 0, "to client": 0}
        self._threads = [Thread(target=self._to_server), Thread(target=self._to_client)]

    def __enter__(self) -> Lossy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Each wakes one thread, which then ends.
        self._far.shutdown(socket.SHUT_RDWR)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self._near.getsockname())
        for thread in self._threads:
            thread.join()
        self._near.close()
        self._far.close()

    def _is_lost(self, direction: Direction, datagram: bytes) -> bool:
        copies = self._copies[direction]
        known = copies.setdefault(datagram, [len(copies), 0])
        lost = is_lost(self._seed, self._loss, direction, *known)
        known[1] += 1
        self.carried[direction] += 1
        self.lost[direction] += lost
        return lost

    def _to_server(self) -> None:
        while True:
            datagram, self._client = self._near.recvfrom(65_535)
            if not datagram:
                return
            if not self._is_lost("to server", datagram):
                self._far.send(datagram)

    def _to_client(self) -> None:
        while datagram := self._far.recv(65_535):
            assert self._client is not None
            if not self._is_lost("to client", datagram):
                self._near.sendto(datagram, self._client)
