"""Users with the right password, who log in again and again while a server is attacked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

TRIES = 20
"""Logins of each user."""

IN_TIME = 2.0
"""Seconds that a login may take, from the connection to its answer."""

KNOWN = "127.9.0.2"
"""Where a user comes from who has logged in before the attack."""


def fresh(number: int) -> str:
    """Return an address that was never seen: of a /16 of its own, or of one with attackers."""
    return f"127.{20 + number if number % 2 else 230 + number}.77.{number + 1}"


@define
class Logins:
    """What became of the logins of one user."""

    times: list[float] = field(factory=list)  # ms of those that were in time
    failures: Counter[str] = field(factory=Counter)  # the others, by error code or fact

    @property
    def made(self) -> int:
        """How many have been tried."""
        return len(self.times) + self.failures.total()


def log_in(port: int, source: str, line: bytes) -> float | str:
    """
    Log in on a connection of its own.

    :return: the milliseconds that it took, or why it failed: an error code, or a fact.
    """
    begin = time.perf_counter()
    answer = b""
    try:
        with socket.create_connection(
            ("127.0.0.1", port), IN_TIME, source_address=(source, 0)
        ) as sock:
            sock.sendall(line + b"\n")
            while b"\n" not in answer:
                left = IN_TIME - (time.perf_counter() - begin)
                if left <= 0:
                    return "late"
                sock.settimeout(left)
                if not (data := sock.recv(65_536)):
                    return "closed"
                answer = _without_events(answer + data)
    except TimeoutError:
        return "late"
    except OSError as error:
        return type(error).__name__
    decoded = json.loads(answer.partition(b"\n")[0])
    if "user" in decoded:
        return (time.perf_counter() - begin) * 1000
    return str(decoded.get("code") or decoded)


def _without_events(lines: bytes) -> bytes:
    """Return what is left without whole lines that the server said unasked."""
    while lines.startswith(b'{"event"') and b"\n" in lines:
        lines = lines.partition(b"\n")[2]
    return lines


class RightUsers:
    """
    Two users, in threads: one of a known address, one of a fresh address each time.

    Each logs in so often, one login after the other, spread over the time of the attack.
    """

    def __init__(self, port: int, name: str, password: str, seconds: float) -> None:
        self._port = port
        self._line = f'AUTH {name} "{password}"'.encode()
        self._seconds = seconds
        self._over = threading.Event()
        self.threads: list[threading.Thread] = []
        self.known = Logins()
        self.fresh = Logins()

    def introduce(self) -> None:
        """
        Log in from the known address, before the attack.

        :raises RuntimeError: if that fails.
        """
        outcome = log_in(self._port, KNOWN, self._line)
        if isinstance(outcome, str):
            raise RuntimeError(f"the right password does not even log in before: {outcome}")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let them log in; whoever is not done when the block ends makes no further try."""
        self.threads = [
            threading.Thread(target=self._run, args=user)
            for user in ((self.known, lambda number: KNOWN), (self.fresh, fresh))
        ]
        for thread in self.threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self.threads:
                thread.join()

    def done(self) -> bool:
        """Whether both have made all their tries."""
        return not any(thread.is_alive() for thread in self.threads)

    def _run(self, logins: Logins, source: Callable[[int], str]) -> None:
        begun = time.monotonic()
        for number in range(TRIES):
            due = begun + number * self._seconds / TRIES
            if self._over.wait(max(due - time.monotonic(), 0.0)):
                break
            outcome = log_in(self._port, source(number), self._line)
            if isinstance(outcome, str):
                logins.failures[outcome] += 1
            else:
                logins.times.append(outcome)
