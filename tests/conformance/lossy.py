"""
A way between a client and a server that loses datagrams both ways, the same ones in each run.

Whether the *n*-th copy of the *m*-th message of a direction is lost follows from the seed alone,
and not from when it comes: on a slow machine a message is sent once more than needed, and that
changes the fate of no other.
"""

from __future__ import annotations

import random
import socket
from threading import Thread
from types import TracebackType
from typing import Literal

Direction = Literal["to server", "to client"]


def is_lost(seed: int, loss: float, direction: Direction, message: int, copy: int) -> bool:
    """Tell the fate of one copy of one message."""
    return random.Random(f"{seed} {direction} {message} {copy}").random() < loss


def attempts(seed: int, loss: float, exchange: int, most: int = 5) -> int | None:
    """
    Tell at which attempt an exchange succeeds, each beginning after the one before; None for never.

    :param most: attempts before the client gives up: 1 + MAX_RETRANSMIT (RFC 7252 §4.8).
    """
    answers = 0
    for attempt in range(most):
        if not is_lost(seed, loss, "to server", exchange, attempt):
            if not is_lost(seed, loss, "to client", exchange, answers):
                return attempt + 1
            answers += 1
    return None


class Lossy:
    """
    Carries the datagrams of one client to a server, and back; leave it with ``with``.

    :param server: its port on 127.0.0.1.
    :ivar uri: of the server, for the client.
    :ivar carried: datagrams that came, by direction.
    :ivar lost: those of them that went no further.
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
        # Each wakes the thread that waits there, which then ends.
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
