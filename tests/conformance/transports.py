"""
Runs Twisted's own tests of TCP, TLS and reactors with our transport and reactor in place.

::

    python -m tests.conformance.transports            # all modules: a few minutes
    python -m tests.conformance.transports twisted.internet.test.test_tcp

The tests come from the installed Twisted. Each variant runs in a process of its own: ``stock`` as
they are, ``fast`` with :class:`FastTransport` and :class:`FastPort` in place of Twisted's own
``Server`` and ``Port``, ``quiet`` with the quiet reactor in place of the epoll reactor, and
``both``. A test that passes on the stock ones must pass with ours; the status is 1 if one does
not, unless :data:`KNOWN` gives the reason.
"""

# ruff: noqa: T201  (a script speaks to a person)
# mypy: disallow-untyped-calls=False
# Trial's reporters have few types.

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import TestCase

MODULES = (
    "twisted.internet.test.test_abstract",
    "twisted.internet.test.test_endpoints",
    "twisted.internet.test.test_epollreactor",
    "twisted.internet.test.test_fdset",
    "twisted.internet.test.test_filedescriptor",
    "twisted.internet.test.test_newtls",
    "twisted.internet.test.test_posixbase",
    "twisted.internet.test.test_socket",
    "twisted.internet.test.test_tcp",
    "twisted.internet.test.test_threads",
    "twisted.internet.test.test_tls",
    "twisted.protocols.haproxy.test.test_wrapper",
    "twisted.protocols.test.test_tls",
    "twisted.spread.test.test_pb",
    "twisted.test.test_abstract",
    "twisted.test.test_ftp",
    "twisted.test.test_internet",
    "twisted.test.test_ssl",
    "twisted.test.test_sslverify",
    "twisted.test.test_tcp",
    "twisted.test.test_tcp_internals",
    "twisted.web.test.test_http",
    "twisted.web.test.test_webclient",
)

VARIANTS = ("fast", "quiet", "both")

_NO_PREFIX = "the quiet reactor gives no log prefix to what a protocol logs; that is its point"
_FEW_ACCEPTS = "FairPort accepts the same few connections in each turn, however many wait"

KNOWN = {
    "twisted.test.test_tcp.LoopbackTests.test_tcpNoDelay": (
        "FastPort sets TCP_NODELAY on what it accepts, so it is on before the test asks for it"
    ),
    "twisted.internet.test.test_tcp.TCP4ClientTestsBuilder_EPollReactorTests.test_logPrefix": (
        _NO_PREFIX
    ),
    "twisted.internet.test.test_tcp.TCP6ClientTestsBuilder_EPollReactorTests.test_logPrefix": (
        _NO_PREFIX
    ),
    "twisted.internet.test.test_tls.SSLClientTestsMixin_EPollReactorTests.test_logPrefix": (
        _NO_PREFIX
    ),
    "twisted.internet.test.test_tls.StartTLSClientTestsMixin_EPollReactorTests.test_logPrefix": (
        _NO_PREFIX
    ),
    "twisted.test.test_tcp_internals.SelectReactorTests.test_acceptScaling": _FEW_ACCEPTS,
    "twisted.test.test_tcp_internals.SelectReactorTests.test_permissionFailure": _FEW_ACCEPTS,
}
"""Tests that pass on the stock ones and fail with ours, each with why that is harmless."""

TIME_LIMIT = 900.0
"""Seconds for one variant."""

Outcomes = dict[str, str]
"""By the name of the test: ``success``, ``skip``, or what went wrong."""


def main(arguments: Sequence[str]) -> int:
    """Run all variants, print how they differ from the stock one, and give the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("modules", nargs="*", default=MODULES, help="modules or tests of Twisted")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="only this one")
    parser.add_argument("--run", nargs=2, metavar=("VARIANT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        variant, file = options.run
        Path(file).write_text(json.dumps(run_here(variant, options.modules)))
        return 0
    stock = run("stock", options.modules)
    report("stock", stock, [])
    status = 0
    for variant in options.variant or VARIANTS:
        ours = run(variant, options.modules)
        losses = lost(variant, stock, ours)
        report(variant, ours, losses)
        if not losses.keys() <= KNOWN.keys():
            status = 1
    return status


def lost(variant: str, stock: Outcomes, ours: Outcomes) -> Outcomes:
    """
    Give the tests that pass on the stock ones alone, with what went wrong.

    A test that fails is tried twice more by itself, as some of Twisted's own fail now and then.
    """
    losses = {
        test: ours.get(test, "did not run")
        for test, outcome in stock.items()
        if outcome == "success" and ours.get(test) != "success"
    }
    for test in list(losses):
        for _ in range(2):
            if run(variant, [test]).get(test) == "success":
                del losses[test]
                break
    return losses


def report(variant: str, outcomes: Outcomes, losses: Outcomes | Sequence[str]) -> None:
    """Print the figures of a variant, and what it lost."""
    counts = Counter(
        outcome if outcome in ("success", "skip") else "failure" for outcome in outcomes.values()
    )
    print(f"{variant}: {', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))}")
    for test in losses:
        reason = KNOWN.get(test)
        print(f"  {test}\n    {f'known: {reason}' if reason else outcomes.get(test, 'missing')}")


def run(variant: str, modules: Sequence[str]) -> Outcomes:
    """
    Run modules, or single tests, in a process of their own.

    :param variant: ``stock``, or one of :data:`VARIANTS`.
    :raises subprocess.SubprocessError: for a process that dies or takes too long.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "outcomes.json")
        command = [
            sys.executable,
            "-m",
            "tests.conformance.transports",
            "--run",
            variant,
            str(file),
        ]
        with open(os.devnull, "w") as nowhere:  # the tests print
            subprocess.run(
                [*command, *modules],
                cwd=Path(__file__).parents[2],
                check=True,
                stdout=nowhere,
                timeout=TIME_LIMIT,
            )
        outcomes: Outcomes = json.loads(file.read_text())
    return outcomes


def run_here(variant: str, modules: Sequence[str]) -> Outcomes:
    """Run modules, or single tests, in this process, whose Twisted is changed for good."""
    put_in_place(variant)
    # Only now, when the reactor is installed.
    from twisted.trial.reporter import Reporter
    from twisted.trial.runner import TestLoader, TrialRunner

    outcomes: Outcomes = {}

    class Recorder(Reporter):
        """Writes down how each test went."""

        def addSuccess(self, test: TestCase) -> None:
            super().addSuccess(test)
            self._record(test, "success")

        def addSkip(self, test: TestCase, reason: str) -> None:
            super().addSkip(test, reason)
            self._record(test, "skip")

        def addFailure(self, test: TestCase, fail: Any) -> None:  # Any: many forms of a failure
            super().addFailure(test, fail)
            self._record(test, str(fail))

        def addError(self, test: TestCase, error: Any) -> None:  # Any: as above
            super().addError(test, error)
            self._record(test, str(error))

        def _record(self, test: TestCase, outcome: str) -> None:
            name = test.id()
            # A test may fail in more than one place: the first says most.
            if outcomes.get(name, "success") == "success":
                outcomes[name] = outcome

    with (
        tempfile.TemporaryDirectory() as directory,
        open(os.devnull, "w") as nowhere,
        closing(asyncio.new_event_loop()) as loop,
    ):
        # Twisted's tests set the current loop aside and put it back. From Python 3.14 on asyncio
        # makes none by itself, and without one they skip all cases of the asyncio reactor.
        asyncio.set_event_loop(loop)
        runner = TrialRunner(Recorder, workingDirectory=f"{directory}/trial", stream=nowhere)
        runner.run(TestLoader().loadByNames(list(modules)))
    return outcomes


def put_in_place(variant: str) -> None:
    """Install the reactor of a variant, and put our transport where Twisted looks for its own."""
    from twisted.internet import epollreactor, tcp, unix
    from twisted.internet.main import installReactor

    from twisted_net.quiet_reactor import QuietEPollReactor
    from twisted_net.tcp.transport import FastPort, FastTransport

    if variant in ("quiet", "both"):
        # By the same name, as some tests are skipped by it; of our module, as some import it.
        quiet = type(
            "EPollReactor", (QuietEPollReactor,), {"__module__": "twisted_net.quiet_reactor"}
        )
        epollreactor.EPollReactor = quiet  # type: ignore[assignment,misc]  # as it is made
    installReactor(epollreactor.EPollReactor())
    if variant in ("fast", "both"):
        # Connections over UNIX sockets derive from Twisted's own, and keep them.
        vars(unix)["tcp"] = SimpleNamespace(**vars(tcp))
        tcp.Server, tcp.Port = FastTransport, FastPort  # type: ignore[misc]  # that is the point


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
