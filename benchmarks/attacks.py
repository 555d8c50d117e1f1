"""
What attackers do to the others, and to the server: ``python -m benchmarks.attacks [name ...]``.

Each attack comes from a crowd of clients (:mod:`benchmarks.crowds`), in a process of its own that
runs behind all others, against the service as an operator starts it, on a processor of its own.
Meanwhile another client, which logs in where that is asked, sends PING again and again, and a new
one comes twice a second. For each attack this prints

- ``sent``: connections and MB that the crowd opened and sent;
- ``CPU``: the share of its processor that the server used; ``away``: the share of the time in which
  it was ready to run, and another program of this machine had that processor;
- ``grown``: MB of memory more than before, at the peak and 3 s after the attack;
- ``PING``: ms, median, 99 of 100, and the worst; ``own p99`` leaves out the time in which another
  program had the server's processor, which is what the bound is for;
- ``new``: newcomers that were served of those who came, and the ms that the slowest of them took;
- what the server counted meanwhile, by reason;
- whether the bounds held: memory as each attack has it, 10 ms for 99 of 100 PINGs, every newcomer
  served, and the refusals counted.

Where the machine itself is busy, look at the first row, which is measured without any attack.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from benchmarks.crowds import Counts, attack
from benchmarks.fairness import percentile, urgent
from benchmarks.servers import Server, free_ports, started
from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import hash_token

MB = 1e6
LONGEST_P99 = 10.0
"""Milliseconds that 99 of 100 PINGs may take at most."""

TOKEN = "the-token-of-the-other-client"
PROBER = "127.9.0.1"
"""Where the other clients come from, of which no attacker comes."""

DEFAULTS = """
[udp]
enabled = false
[tcp]
port = {port}
max_connections = 12_000
"""
"""All as it comes, but for the room that 10 000 attackers and the others need."""

SECURED = """
[udp]
enabled = false
[auth]
users = "{folder}/users.toml"
[tcp]
port = {port}
max_connections = 12_000
connections_per_address = 20
connections_per_network = 100
commands_per_address = 100.0
bytes_per_address = 1_000_000.0
"""
"""As docs/howto/securing.rst has it for the open internet."""

TLS = (
    SECURED
    + """
[[listeners]]
port = {other}
tls = {{ certificate = "{folder}/cert.pem", key = "{folder}/key.pem" }}
"""
)

PROXY = (
    SECURED
    + """
[[listeners]]
port = {other}
proxy = ["127.0.0.1"]
"""
)


@frozen
class Attack:
    """
    One attack, and what must hold.

    :param config: the server's configuration.
    :param memory: bytes by which the server may grow.
    :param why: what bounds its memory.
    :param counted: reasons of which the server must have counted some.
    :param other: whether the crowd goes to the second listener.
    """

    config: str
    memory: float
    why: str
    counted: tuple[str, ...] = ()
    other: bool = False


ATTACKS: dict[str, Attack] = {
    "slowloris": Attack(
        SECURED, 30 * MB, "auth.max_anonymous and two per address", ("anonymous_limit",)
    ),
    "slowloris_tls": Attack(
        TLS, 150 * MB, "tcp.max_handshakes, 50 KiB each", ("too_many_handshakes",), other=True
    ),
    "never_reading": Attack(DEFAULTS, 200 * MB, "tcp.max_pending, and 64 KiB for each of 200"),
    "single_bytes": Attack(DEFAULTS, 20 * MB, "tcp.max_line for each of 100"),
    "flood_ping": Attack(DEFAULTS, 30 * MB, "64 KiB in and out for each of 50"),
    "flood_help": Attack(DEFAULTS, 30 * MB, "64 KiB in and out for each of 50"),
    "flood_clients": Attack(DEFAULTS, 120 * MB, "what a turn of each of 50 may answer"),
    "flood_limited": Attack(SECURED, 30 * MB, "tcp.commands_per_address", ("rate_limited",)),
    "flood_auth": Attack(
        SECURED, 100 * MB, "one check at a time, of 32 MiB", ("auth_failed", "auth_delayed")
    ),
    "flood_connections": Attack(SECURED, 30 * MB, "tcp.connections_per_address"),
    "flood_subscribe": Attack(
        DEFAULTS, 150 * MB, "topics.max_subscriptions_in_all", ("subscription_limit",)
    ),
    "fanout": Attack(
        DEFAULTS, 400 * MB, "80 KiB, and topics.max_queue of shared lines, for each of 10 000"
    ),
    "endless_lines": Attack(DEFAULTS, 20 * MB, "tcp.max_line for each of 100", ("line_too_long",)),
    "proxy_lies": Attack(
        PROXY, 30 * MB, "tcp.max_handshakes", ("untrusted_proxy", "handshake_failed"), other=True
    ),
}


@define
class Seen:
    """What the other clients saw, in milliseconds; None for a newcomer who was not served."""

    pings: list[float] = field(factory=list)
    own: list[float] = field(factory=list)  # the same, less what other programs took
    newcomers: list[float | None] = field(factory=list)


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
            self.ask(f"AUTH {TOKEN}")

    def ask(self, line: str) -> Any:  # Any: JSON
        """Send a line, and give its answer."""
        self._sock.sendall(line.encode() + b"\n")
        while b"\n" not in self._rest:
            data = self._sock.recv(65_536)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._rest += data
        answer, _, self._rest = self._rest.partition(b"\n")
        decoded = json.loads(answer)
        if "error" in decoded:
            raise ConnectionError(decoded["error"])
        return decoded

    def close(self) -> None:
        """End the connection."""
        self._sock.close()


def look(server: Server, probe: Probe, secured: bool, seconds: float, crowd: Crowding) -> Seen:
    """Be the other clients for so long, and until all of the crowd have come."""
    seen = Seen()
    # A hundred a second are allowed where the server is secured.
    rest = 0.015 if secured else 0.002
    begun = newcomer = time.monotonic()
    while time.monotonic() < begun + seconds or not crowd.complete():
        assert time.monotonic() < begun + 60, "the crowd does not come"
        ran, waited = server.times()
        begin = time.perf_counter()
        probe.ask("PING")
        took = (time.perf_counter() - begin) * 1000
        ran_after, waited_after = server.times()
        # What it waited for a thread of its own is its own fault.
        others = min(waited_after - waited, max(took / 1000 - (ran_after - ran), 0.0)) * 1000
        seen.pings.append(took)
        seen.own.append(took - others)
        if time.monotonic() >= newcomer:
            newcomer = time.monotonic() + 0.5
            seen.newcomers.append(come(server, secured))
        time.sleep(rest)
    return seen


def come(server: Server, secured: bool) -> float | None:
    """Be a newcomer: connect, log in, be answered; give the milliseconds, or None if refused."""
    begin = time.perf_counter()
    try:
        probe = Probe(server, secured, timeout=5.0)
        probe.ask("PING")
    except OSError:
        return None
    probe.close()
    return (time.perf_counter() - begin) * 1000


def counts_of(probe: Probe) -> dict[str, int]:
    """Give all that the server counts by a reason."""
    stats = probe.ask("STATS")
    topics = {f"topics.{name}": value for name, value in stats["topics"].items()}
    return {**stats["connections_ended"], **stats["refused"], **topics}


def measure(name: str, found: Attack, seconds: float, cores: tuple[int, int] | None) -> Outcome:
    """Run one attack, or none where its name is that of no crowd."""
    secured = found.config is not DEFAULTS
    with serving(found, cores) as (server, port), crowding(name, port, cores) as crowd:
        probe = Probe(server, secured)
        before = counts_of(probe)
        server.forget_peak()
        resident = server.resident()
        (ran, waited), began = server.times(), time.monotonic()
        crowd.begin()
        with urgent():
            seen = look(server, probe, secured, seconds, crowd)
        took = time.monotonic() - began
        ran_after, waited_after = server.times()
        cpu, away = (ran_after - ran) / took, (waited_after - waited) / took
        counts = crowd.end()
        peak = server.peak() - resident
        time.sleep(3.0)
        counted = {
            reason: value - before.get(reason, 0)
            for reason, value in counts_of(probe).items()
            if value != before.get(reason, 0)
        }
        after = server.resident() - resident
        probe.close()
    return Outcome(counts, seen, cpu, away, peak, after, counted)


@contextmanager
def serving(found: Attack, cores: tuple[int, int] | None) -> Iterator[tuple[Server, int]]:
    """Run the service, and give it with the port that is attacked."""
    tcp_port, _ = free_ports()
    other, _ = free_ports()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "users.toml").write_text(
            f'[probe]\ntokens = ["{hash_token(TOKEN)}"]\n'
            f'[root]\npassword = "{hash_password("sesame", os.urandom(16))}"\n'
        )
        os.chmod(Path(folder, "users.toml"), 0o600)
        if found.config is TLS:
            certify(folder)
        config = Path(folder, "net.toml")
        config.write_text(found.config.format(port=tcp_port, other=other, folder=folder))
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [twistd, "-n", "--pidfile=", "net", f"--config={config}"]
        with started("ours", command, tcp_port, 0, cores and cores[0]) as server:
            yield server, other if found.other else tcp_port


def certify(folder: str) -> None:
    """Make a certificate for localhost."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-keyout", f"{folder}/key.pem"),
            *("-out", f"{folder}/cert.pem"),
        ],
        check=True,
        capture_output=True,
    )


class Crowding:
    """A crowd in its process; nobody is in it where there is no attack."""

    def __init__(self, name: str, port: int, cores: tuple[int, int] | None) -> None:
        self._process = None
        self._complete = False
        if name in ATTACKS:
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
        """Call it back, and give what it did."""
        if self._process is None:
            return Counts()
        self._pipe.send(None)
        counts: Counts = self._pipe.recv()
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


def faults(found: Attack, outcome: Outcome) -> list[str]:
    """Say which bounds did not hold."""
    wrong = []
    p99 = percentile(outcome.seen.own, 0.99)
    if p99 > LONGEST_P99:
        wrong.append(f"PING p99 {p99:.1f} ms")
    if outcome.peak > found.memory:
        wrong.append(f"{outcome.peak / MB:.0f} MB, over {found.memory / MB:.0f} ({found.why})")
    if None in outcome.seen.newcomers:
        wrong.append("newcomers were turned away")
    wrong += [
        f"{reason} is not counted" for reason in found.counted if reason not in outcome.counted
    ]
    return wrong


def show(name: str, found: Attack, outcome: Outcome) -> None:
    """Print the row of an attack."""
    seen, crowd = outcome.seen, outcome.crowd
    served = [time for time in seen.newcomers if time is not None]
    print(
        f"{name:18}{crowd.opened:8}{crowd.sent / MB:9.1f}"
        f"{outcome.cpu:6.0%}{outcome.away:6.0%}"
        f"{outcome.peak / MB:8.1f}{outcome.after / MB:8.1f}"
        f"{statistics.median(seen.pings):8.2f}{percentile(seen.pings, 0.99):8.2f}"
        f"{max(seen.pings):8.2f}{percentile(seen.own, 0.99):8.2f}"
        f"{f'{len(served)}/{len(seen.newcomers)}':>8}{max(served, default=0):8.1f}"
        f"  {'; '.join(faults(found, outcome)) or 'held'}"
    )
    counted = ", ".join(f"{reason} {number}" for reason, number in outcome.counted.items())
    print(f"{'':18}{counted}", flush=True)


def main() -> None:
    """Attack, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=8.0, help="of each attack")
    options = parser.parse_args()
    unknown = set(options.names) - set(ATTACKS)
    if unknown:
        parser.error(f"there is no attack {min(unknown)}; there are {', '.join(ATTACKS)}")
    usable = sorted(os.sched_getaffinity(0))
    cores = (usable[0], usable[1]) if len(usable) > 1 else None
    if cores is not None:
        os.sched_setaffinity(0, {cores[1]})
    raise_file_limit()
    print(
        f"{'attack':18}{'clients':>8}{'sent MB':>9}{'CPU':>6}{'away':>6}{'MB peak':>8}{'after':>8}"
        f"{'PING p50':>8}{'p99':>8}{'worst':>8}{'own p99':>8}{'new':>8}{'slowest':>8}  bounds"
    )
    failed = 0
    none = Attack(DEFAULTS, 20 * MB, "nothing grows")
    for name in ["(no attack)", *(options.names or ATTACKS)]:
        found = ATTACKS.get(name, none)
        outcome = measure(name, found, options.seconds, cores)
        show(name, found, outcome)
        failed += bool(faults(found, outcome))
    sys.exit(1 if failed else 0)


def raise_file_limit() -> None:
    """Let this process and its children have as many files open as the system lets them."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
