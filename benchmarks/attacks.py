"""
What attackers do to the others, and to the server: ``python -m benchmarks.attacks [name ...]``.

Each attack comes from a crowd of clients (:mod:`benchmarks.crowds`), in a process of its own that
runs behind all others, against the service as an operator starts it, on a processor of its own.
Meanwhile another client, which logs in where that is asked, sends PING again and again, and a new
one comes twice a second. Where clients log in, two users do so with their password, 20 times each
(:mod:`benchmarks.right_users`). For each attack this prints

- ``sent``: connections and MB that the crowd opened and sent;
- ``CPU``: the share of its processor that the server used; ``away``: the share of the time in which
  it was ready to run, and another program of this machine had that processor;
- ``grown``: MB of memory more than before, at the peak and 3 s after the attack;
- ``PING``: ms, median, 99 of 100, and the worst; ``own p99`` leaves out the time in which another
  program had the server's processor, which is what the bound is for;
- ``new``: newcomers that were served of those who came, and the ms that the slowest of them took;
- ``logins``: of 20 with the right password, those that took less than 2 s, of a user whose address
  is known, and of one whose address is another one each time; the ms of the slowest of these;
- what the server counted meanwhile, by reason, and what became of the other logins;
- whether the bounds held: memory as each attack has it, 10 ms for 99 of 100 PINGs, every newcomer
  served, every right password taken in time, the refusals counted, no command of a page run, and
  nothing that only members may hear sent to others.

Where the machine itself is busy, look at the first row, which is measured without any attack.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from attrs import define, field, frozen
from twisted.application.reactors import getReactorTypes

from benchmarks.attack_rows import ATTACKS, COUNTED_COMMANDS, MB, NO_ATTACK, Attack
from benchmarks.attacked import NAME, PASSWORD, PROBE_TOKEN, TWISTD, CannotRun, serving
from benchmarks.crowds import PER_PAGE, Counts, attack
from benchmarks.fairness import percentile, urgent
from benchmarks.hostile_origin import PAGES
from benchmarks.options import bounded_number
from benchmarks.right_users import TRIES, Logins, RightUsers
from benchmarks.servers import Server

LONGEST_P99 = 10.0
"""Milliseconds that 99 of 100 PINGs may take at most."""

LONGEST_P99_OF_A_PAGE = 5.0
"""The same beside the clients that fetch one page of a hostile server."""

_PAGES = "hostile_pages"

LONGEST_ROW = 90.0
"""Seconds after which a row ends, though not all of the crowd have come, or not all logins made."""

PROBER = "127.9.0.1"
"""Where the other clients come from, of which no attacker comes."""


@define
class Seen:
    """What the other clients saw, in milliseconds; None for a newcomer who was not served."""

    pings: list[float] = field(factory=list)
    own: list[float] = field(factory=list)  # the same, less what other programs took
    newcomers: list[float | None] = field(factory=list)
    users: tuple[Logins, ...] = ()  # who log in with a password, if anybody does


@frozen
class Outcome:
    """What became of one attack."""

    crowd: Counts
    seen: Seen
    cpu: float
    away: float
    peak: float
    after: float
    counted: Mapping[str, int]


class Probe:
    """The other client: logs in where it must, and speaks a line at a time."""

    def __init__(self, server: Server, secured: bool, timeout: float = 30.0) -> None:
        self._sock = socket.create_connection(
            ("127.0.0.1", server.tcp_port), timeout, source_address=(PROBER, 0)
        )
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        if secured:
            self.ask(f"AUTH {PROBE_TOKEN}")

    def ask(self, line: str) -> Any:  # Any: JSON
        """
        Send a line, and return its answer; what the server says unasked is skipped.

        :raises ConnectionError: for an answer that is an error.
        """
        self._sock.sendall(line.encode() + b"\n")
        while True:
            while b"\n" not in self._rest:
                data = self._sock.recv(65_536)
                if not data:
                    raise ConnectionError("the server has closed the connection")
                self._rest += data
            answer, _, self._rest = self._rest.partition(b"\n")
            decoded = json.loads(answer)
            if "error" in decoded:
                raise ConnectionError(decoded["error"])
            if "event" not in decoded:
                return decoded

    def close(self) -> None:
        """End the connection."""
        self._sock.close()


class Crowding:
    """A crowd in its process; nobody is in it where there is no attack."""

    def __init__(self, name: str, port: int, cores: tuple[int, int] | None) -> None:
        self._process = None
        self._complete = False
        if base_name(name) in ATTACKS:
            context = multiprocessing.get_context("spawn")
            self._pipe, end = context.Pipe()
            self._process = context.Process(
                target=attack, args=(name, port, cores and cores[1], end)
            )

    def begin(self) -> None:
        """Let it loose."""
        if self._process is not None:
            self._process.start()
            self._pipe.recv()

    def complete(self) -> bool:
        """Whether as many have come as are to be there at one time."""
        if not self._complete and self._process is not None and self._pipe.poll():
            self._pipe.recv()
            self._complete = True
        return self._complete or self._process is None

    def end(self) -> Counts:
        """Call it back, and return what it did."""
        if self._process is None:
            return Counts()
        self._pipe.send(None)
        while not isinstance(counts := self._pipe.recv(), Counts):
            pass  # that it was complete
        return counts

    def close(self) -> None:
        """Leave nothing of it."""
        if self._process is not None and self._process.pid is not None:
            self._process.join(5)
            self._process.kill()
            self._process.join()


@contextmanager
def crowding(name: str, port: int, cores: tuple[int, int] | None) -> Iterator[Crowding]:
    """Have a crowd, for as long as the block runs."""
    crowd = Crowding(name, port, cores)
    try:
        yield crowd
    finally:
        crowd.close()


class Bystanders:
    """
    Those who use the server while it is attacked.

    :param seconds: how long they do so, at least.
    """

    def __init__(self, server: Server, secured: bool, seconds: float) -> None:
        self._server = server
        self._secured = secured
        self._seconds = seconds
        self._probe = Probe(server, secured)
        self._users = RightUsers(server.tcp_port, NAME, PASSWORD, seconds) if secured else None
        if self._users is not None:
            self._users.introduce()

    def counts(self) -> dict[str, int]:
        """Return all that the server counts by a reason, and the commands that a page would run."""
        stats = self._probe.ask("STATS")
        ran = self._probe.ask("INFO commands")["commands"]
        return {
            **stats["connections_ended"],
            **stats["refused"],
            **{f"topics.{name}": value for name, value in stats["topics"].items()},
            **{name: ran.get(name, 0) for name in COUNTED_COMMANDS},
        }

    def use(self, crowd: Crowding) -> Seen:
        """Use the server until the time is over, all of the crowd have come, and all logged in."""
        seen = Seen()
        with ExitStack() as opened:
            users = self._users
            if users is not None:
                seen.users = users.known, users.fresh
                opened.enter_context(users.at_work())
            begun = newcomer = time.monotonic()
            while (now := time.monotonic()) < begun + LONGEST_ROW:
                if now >= begun + self._seconds and crowd.complete() and not self._logging_in():
                    break
                self._ping(seen)
                if now >= newcomer:
                    newcomer = now + 0.5
                    seen.newcomers.append(self._come())
                # A hundred a second are allowed where the server is secured.
                time.sleep(0.015 if self._secured else 0.002)
        return seen

    def close(self) -> None:
        """End what is left."""
        self._probe.close()

    def _logging_in(self) -> bool:
        return self._users is not None and not self._users.done()

    def _ping(self, seen: Seen) -> None:
        ran, waited = self._server.times()
        begin = time.perf_counter()
        self._probe.ask("PING")
        took = (time.perf_counter() - begin) * 1000
        ran_after, waited_after = self._server.times()
        # What it waited for a thread of its own is its own fault.
        others = min(waited_after - waited, max(took / 1000 - (ran_after - ran), 0.0)) * 1000
        seen.pings.append(took)
        seen.own.append(took - others)

    def _come(self) -> float | None:
        """Be a newcomer, and be answered; return the milliseconds, or None if refused."""
        begin = time.perf_counter()
        try:
            probe = Probe(self._server, self._secured, timeout=5.0)
            probe.ask("PING")
        except OSError:
            return None
        probe.close()
        return (time.perf_counter() - begin) * 1000


def measure(
    name: str, found: Attack, seconds: float, cores: tuple[int, int] | None, twistd: Sequence[str]
) -> Outcome:
    """
    Run one attack, or none where its name is that of no crowd.

    :raises CannotRun: where this system does not let us.
    """
    with (
        serving(found, cores and cores[0], twistd) as (server, port),
        crowding(name, port, cores) as crowd,
    ):
        bystanders = Bystanders(server, found.logins, seconds)
        before = bystanders.counts()
        server.forget_peak()
        resident = server.resident()
        (ran, waited), began = server.times(), time.monotonic()
        crowd.begin()
        with urgent():
            seen = bystanders.use(crowd)
        took = time.monotonic() - began
        ran_after, waited_after = server.times()
        cpu, away = (ran_after - ran) / took, (waited_after - waited) / took
        counts = crowd.end()
        peak = server.peak() - resident
        time.sleep(3.0)
        counted = {
            reason: value - before.get(reason, 0)
            for reason, value in bystanders.counts().items()
            if value != before.get(reason, 0)
        }
        after = server.resident() - resident
        bystanders.close()
    return Outcome(counts, seen, cpu, away, peak, after, counted)


def base_name(name: str) -> str:
    """Return the attack that a name stands for, or is a part of."""
    return name.partition(":")[0]


def faults(found: Attack, outcome: Outcome, *, of_page: bool = False) -> list[str]:
    """
    Say which bounds did not hold.

    :param of_page: whether it is one page that was fetched.
    """
    wrong = []
    crowd, seen, counted = outcome.crowd, outcome.seen, outcome.counted
    p99 = percentile(seen.own, 0.99)
    if p99 > (LONGEST_P99_OF_A_PAGE if of_page else LONGEST_P99):
        wrong.append(f"PING p99 {p99:.1f} ms")
    if outcome.peak > found.memory:
        wrong.append(f"{outcome.peak / MB:.0f} MB, over {found.memory / MB:.0f} ({found.why})")
    if None in seen.newcomers:
        wrong.append("newcomers were turned away")
    for which, logins in zip(("known", "fresh"), seen.users, strict=False):
        if len(logins.times) < TRIES:
            wrong.append(f"right passwords from {which}: {len(logins.times)} of {TRIES}")
    wrong += [f"{reason} is not counted" for reason in found.counted if reason not in counted]
    if found.ended and counted.get(found.ended, 0) != crowd.opened:
        wrong.append(f"{counted.get(found.ended, 0)} {found.ended} of {crowd.opened}")
    wrong += [f"ran {name} {counted[name]} times" for name in found.not_run if name in counted]
    if found.heard and not crowd.heard:
        wrong.append("no member heard anything")
    if crowd.leaked:
        wrong.append(f"{crowd.leaked} bytes reached strangers")
    return wrong


HEADINGS = (
    f"{'attack':18}{'clients':>8}{'sent MB':>9}{'CPU':>6}{'away':>6}{'MB peak':>8}{'after':>8}"
    f"{'PING p50':>9}{'p99':>8}{'worst':>8}{'own p99':>8}{'new':>7}{'slowest':>8}"
    f"{'logins':>12}{'slowest':>8}  bounds"
)


def row(name: str, found: Attack, outcome: Outcome) -> str:
    """Return the lines of an attack: its figures, and what was counted."""
    seen, crowd = outcome.seen, outcome.crowd
    served = [time for time in seen.newcomers if time is not None]
    in_time = [time for logins in seen.users for time in logins.times]
    logged_in = " ".join(f"{len(logins.times)}/{TRIES}" for logins in seen.users)
    figures = (
        f"{name:18} {crowd.opened:7}{crowd.sent / MB:9.1f}"
        f"{outcome.cpu:6.0%}{outcome.away:6.0%}"
        f"{outcome.peak / MB:8.1f}{outcome.after / MB:8.1f}"
        f"{statistics.median(seen.pings):9.2f}{percentile(seen.pings, 0.99):8.2f}"
        f"{max(seen.pings):8.2f}{percentile(seen.own, 0.99):8.2f}"
        f"{f'{len(served)}/{len(seen.newcomers)}':>7}{max(served, default=0):8.1f}"
        f"{logged_in:>12}{f'{max(in_time, default=0):.0f}' if seen.users else '':>8}"
        f"  {'; '.join(faults(found, outcome, of_page=':' in name)) or 'held'}"
    )
    notes = [f"{reason} {number}" for reason, number in outcome.counted.items()]
    for which, logins in zip(("known", "fresh"), seen.users, strict=False):
        notes += [f"logins ({which}) {why} {number}" for why, number in logins.failures.items()]
    return f"{figures}\n{'':18}{', '.join(notes)}"


def parsed_options() -> argparse.Namespace:
    """Return the options of the command line, or end the process with what is wrong with one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(ATTACKS))
    parser.add_argument(
        "--seconds",
        type=bounded_number(float, 0.05, 3600),
        default=10.0,
        help="of each attack, at least",
    )
    parser.add_argument(
        "--twistd",
        default=TWISTD,
        metavar="path",
        help="the program that starts the server, such as that of another checkout's environment",
    )
    reactors = sorted({one.shortName for one in getReactorTypes()})
    parser.add_argument(
        "--reactor",
        choices=reactors,
        metavar="name",
        help=f"that of the server: {', '.join(reactors)}; default: the one of twistd",
    )
    parser.add_argument(
        "--rounds",
        type=bounded_number(int, 1, 99),
        default=1,
        help="of each attack; the one with the median of the PINGs' own p99 is shown",
    )
    parser.add_argument(
        "--each-page",
        action="store_true",
        help=f"measure {_PAGES}:NAME for each page, which {PER_PAGE} clients fetch",
    )
    options = parser.parse_args()
    options.names += [f"{_PAGES}:{page}" for page in PAGES] if options.each_page else []
    known = {*ATTACKS, *(f"{_PAGES}:{page}" for page in PAGES)}
    unknown = set(options.names) - known
    if unknown:
        parser.error(f"there is no attack {min(unknown)}; there are {', '.join(ATTACKS)}")
    if not os.access(options.twistd, os.X_OK):
        parser.error(f"--twistd: {options.twistd}: no program")
    return options


def main() -> None:
    """Attack, and print the table."""
    options = parsed_options()
    twistd = [options.twistd, *([f"--reactor={options.reactor}"] if options.reactor else ())]
    usable = sorted(os.sched_getaffinity(0))
    cores = (usable[0], usable[1]) if len(usable) > 1 else None
    if cores is not None:
        os.sched_setaffinity(0, {cores[1]})
    raise_file_limit()
    print(HEADINGS)
    failed = 0
    for name in ["(no attack)", *(options.names or ATTACKS)]:
        found = ATTACKS.get(base_name(name), NO_ATTACK)
        try:
            outcomes = [
                measure(name, found, options.seconds, cores, twistd) for _ in range(options.rounds)
            ]
        except CannotRun as reason:
            print(f"{name:18}did not run: {reason}", flush=True)
            continue
        outcomes.sort(key=lambda each: percentile(each.seen.own, 0.99))
        outcome = outcomes[len(outcomes) // 2]
        print(row(name, found, outcome), flush=True)
        failed += bool(faults(found, outcome, of_page=":" in name))
    sys.exit(1 if failed else 0)


def raise_file_limit() -> None:
    """Let this process and its children have as many files open as the system lets them."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
