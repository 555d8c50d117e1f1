"""What the benchmarks do with their figures; that they measure is tested live."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import attacks, forged_sources, http_upstreams
from benchmarks.__main__ import main
from benchmarks.chart import draw
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.load import Load, WrongAnswer
from benchmarks.options import bounded_number
from benchmarks.report import Report, in_words
from benchmarks.runs import Run
from benchmarks.scenarios import SCENARIOS, Figures, Scenario
from benchmarks.servers import processor_time
from tests.patience import wait_until

UDP = "udp"


def report() -> Report:
    """Give a report with three rounds of one contestant, one of another, and none of a third."""
    made = Report({"date": "2026-11-22", "versions": "Twisted 26.10.0 & others"})
    for figure in (9.0, 4.0, 5.0):
        made.note(UDP, "quiet", {"CPU µs": figure, "p50 ms": 0.25})
    made.note(UDP, "plain", {"CPU µs": 50.0, "p50 ms": 1234.0})
    made.explain(UDP, "uvloop", "uvloop is not installed")
    return made


class ReportTests(SynchronousTestCase):
    """:class:`Report` keeps figures, and tells them."""

    def test_median(self) -> None:
        """The median is that of the first figure, or of the one that is named."""
        self.assertEqual(report().median(UDP, "quiet"), 5.0)
        self.assertEqual(report().median(UDP, "plain", "p50 ms"), 1234.0)
        self.assertIsNone(report().median(UDP, "uvloop"))
        self.assertIsNone(report().median("memory", "quiet"))

    def test_text(self) -> None:
        """The table has medians, spreads, ratios to plain Twisted, and why a row has none."""
        lines = [" ".join(line.split()) for line in report().to_text().splitlines()]
        self.assertEqual(
            lines,
            [
                "date: 2026-11-22",
                "versions: Twisted 26.10.0 & others",
                "",
                "UDP: 1 client, 64 datagrams under way",
                "CPU µs (spread) ratio p50 ms",
                "twisted_net, quiet reactor 5.00 (4.00 to 9.00) 0.10 0.25",
                "Twisted DatagramProtocol 50.0 (50.0 to 50.0) 1.00 1,234",
                "DatagramProtocol on uvloop uvloop is not installed",
            ],
        )

    def test_json(self) -> None:
        """What is kept as JSON is read again, whole."""
        self.assertEqual(Report.from_json(report().to_json()), report())

    def test_numbers(self) -> None:
        """A number has three digits that count, and all of those before the point."""
        shown = [in_words(number) for number in (0.004, 1.006, 99.94, 100.4, 12345.6, None)]
        self.assertEqual(shown, ["0.00", "1.01", "99.9", "100", "12,346", ""])


class ChartTests(SynchronousTestCase):
    """:func:`draw` gives an SVG."""

    def test_bars(self) -> None:
        """There is a bar for each median, the least first; its length is to scale or is cut."""
        made = report()
        made.note(UDP, "asyncio", {"CPU µs": 10.0, "p50 ms": 1.0})
        root = ElementTree.fromstring(draw(made))
        shapes = [shape for shape in root.iter() if shape.get("height") == "14"]
        widths = [float(shape.attrib["width"]) for shape in shapes]
        self.assertAlmostEqual(widths[1] / widths[0], 2.0, places=2)
        self.assertAlmostEqual(widths[2] / widths[1], 3.0, places=2)  # and 50 is cut there
        self.assertEqual(len(list(root.iter("{http://www.w3.org/2000/svg}polygon"))), 1)
        self.assertEqual([shape.get("fill") for shape in shapes].count("#0f766e"), 1)
        texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("Twisted 26.10.0 & others", texts)
        self.assertEqual([text for text in texts if text in ("5.00", "10.0", "50.0")], texts[-5::2])

    def test_nothing(self) -> None:
        """A report without figures is a drawing without panels."""
        root = ElementTree.fromstring(draw(Report({})))
        self.assertEqual(list(root.iter("{http://www.w3.org/2000/svg}polygon")), [])


class RunTests(SynchronousTestCase):
    """:class:`Run` goes on where one contestant fails."""

    def run_with(self, contestant: Contestant, measure: Figures | Exception) -> Run:
        """Run two rounds of a scenario that gives these figures, or fails."""

        def alone(contestant: Contestant, core: int | None) -> Figures:
            if isinstance(measure, Exception):
                raise measure
            return measure

        run = Run(Report({}), 1.0, None)
        scenarios = [
            Scenario("memory", "", "", tuple(CONTESTANTS), alone=alone, once=True),
            Scenario("start-up", "", "", tuple(CONTESTANTS), alone=alone),
            Scenario("fan-out", "", "", (), alone=alone),
        ]
        with contextlib.redirect_stderr(io.StringIO()):
            run.rounds(2, [contestant], scenarios)
        return run

    def test_rounds(self) -> None:
        """A scenario has figures of each round, or of the first alone, for its contestants."""
        run = self.run_with(CONTESTANTS["plain"], {"ms": 1.0})
        counts = {name: len(rows["plain"]) for name, rows in run.report.figures.items()}
        self.assertEqual(counts, {"memory": 1, "start-up": 2})
        self.assertFalse(run.failed)

    def test_failure(self) -> None:
        """A wrong answer is told in place of figures, and the run has failed."""
        run = self.run_with(CONTESTANTS["plain"], WrongAnswer("b'x' instead of b'y'"))
        reason = "WrongAnswer: b'x' instead of b'y'"
        self.assertEqual(run.report.reasons["start-up"], {"plain": reason})
        self.assertTrue(run.failed)

    def test_missing(self) -> None:
        """Who is not installed is told with what to install, and is no failure."""
        plain = CONTESTANTS["plain"]
        for name, contestant in (
            ("no-such-server", evolve(plain, program="no-such-server")),
            ("no_such_package", evolve(plain, package="no_such_package")),
        ):
            run = self.run_with(contestant, {"ms": 1.0})
            (reason,) = run.report.reasons["memory"].values()
            self.assertIn(f"{name} is not installed", reason)
            self.assertEqual((run.report.figures, run.failed), ({}, False))


class MainTests(SynchronousTestCase):
    """The command line tells mistakes before it measures."""

    def call(self, *words: str) -> tuple[int | str | None, str]:
        """Give the status and what was printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                status: int | str | None = main(words)
            except SystemExit as end:
                status = end.code
        return status, printed.getvalue()

    def test_list(self) -> None:
        """``--list`` shows each contestant and each scenario."""
        status, text = self.call("--list")
        self.assertEqual(status, 0)
        shown = re.findall(r"^  (\S+)", text, re.MULTILINE)
        self.assertEqual(shown, [*CONTESTANTS, *SCENARIOS])

    def test_mistakes(self) -> None:
        """A name that there is not, a number out of bounds and a folder that is not there."""
        for words, expected in (
            (["--only=plain,nobody"], "there is no nobody; there are quiet, ours"),
            (["--scenarios=nothing"], "there is no nothing"),
            (["--rounds=0"], "must be an integer from 1 to 100, not '0'"),
            (["--seconds=1e9"], "must be a number from 0.05 to 60, not '1e9'"),
            (["--svg=/no/where.svg"], "there is no folder /no"),
        ):
            status, text = self.call(*words)
            self.assertEqual(status, 2, text)
            self.assertIn(expected, text)

    def test_read(self) -> None:
        """``--read`` prints and draws what an earlier run has kept."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        kept, drawn = Path(holder.name, "kept.json"), Path(holder.name, "drawn.svg")
        kept.write_text(report().to_json())
        status, text = self.call(f"--read={kept}", f"--svg={drawn}", f"--text={kept}.txt")
        self.assertEqual((status, text), (0, report().to_text()))
        self.assertEqual(drawn.read_text(), draw(report()))
        self.assertEqual(Path(f"{kept}.txt").read_text(), text)


class BoundedNumberTests(SynchronousTestCase):
    """:func:`bounded_number` reads the numbers of the benchmarks' options."""

    def test_bounds(self) -> None:
        """Both ends are allowed; what is beyond, or no number, is told with what is allowed."""
        seconds = bounded_number(float, 0.05, 60)
        self.assertEqual((seconds("0.05"), seconds("60")), (0.05, 60.0))
        for refused in ("0", "-1", "60.1", "nan", "inf", "x", ""):
            with self.assertRaises(argparse.ArgumentTypeError) as raised:
                seconds(refused)
            self.assertEqual(
                str(raised.exception), f"must be a number from 0.05 to 60, not {refused!r}"
            )
        with self.assertRaises(argparse.ArgumentTypeError) as raised:
            bounded_number(int, 1, 9)("1.5")
        self.assertEqual(str(raised.exception), "must be an integer from 1 to 9, not '1.5'")


class AttackOptionsTests(SynchronousTestCase):
    """:mod:`benchmarks.attacks` refuses what it cannot run before it starts a server."""

    def test_mistakes(self) -> None:
        """An attack or a reactor that there is not is told with those that there are."""
        for words, said in (
            (["nope"], "there is no attack nope; there are slowloris"),
            (["--reactor", "nope", "single_bytes"], "'quiet'"),
            (["--reactor=epoll", "--twistd=/none"], "--twistd: /none: no program"),
        ):
            err = io.StringIO()
            self.patch(sys, "argv", ["attacks", *words])
            with contextlib.redirect_stderr(err):
                error = self.assertRaises(SystemExit, attacks.parsed_options)
            self.assertEqual(error.code, 2)
            self.assertIn(said, err.getvalue())


class ForgedSourcesTests(SynchronousTestCase):
    """:mod:`benchmarks.forged_sources` takes crowds of some sources only."""

    def test_crowds(self) -> None:
        """A crowd of none, or of fewer, is refused by name."""
        for crowd in ("0", "-1"):
            err = io.StringIO()
            with contextlib.redirect_stderr(err):
                self.assertRaises(SystemExit, forged_sources.main, [f"--crowds={crowd}"])
            self.assertIn("--crowds: must be an integer from 1", err.getvalue())


class UpstreamsTests(SynchronousTestCase):
    """:mod:`benchmarks.http_upstreams` says what did not hold."""

    def faults(self, **changed: Any) -> list[str]:  # Any: of each field its type
        """Return the faults of phases with such figures."""
        load = http_upstreams.Load(clients=2, servers=3, rounds=1, deadline=1.0, outage=20.0)
        found = []
        for name in ("cold", "next", "outage", "back", "after"):
            got = 0 if name == "outage" else 90
            phase = http_upstreams.Phase(name, got=got, asked=100 if name == "cold" else 90)
            found.append(evolve(phase, **(changed if name in ("cold", "outage") else {})))
        return http_upstreams.faults(load, found)

    def test_faults(self) -> None:
        """Too few parts, an open circuit breaker after the first round, a herd in the outage."""
        self.assertEqual(self.faults(), [])
        self.assertEqual(self.faults(got=89), ["cold: 0.890 of the parts, not 0.9"])
        self.assertEqual(self.faults(most=13), [])
        self.assertEqual(self.faults(most=14), ["outage: 14 requests to one server, over 13"])
        [fault] = self.faults(opened=1)
        self.assertIn("cold: 1 circuit breakers", fault)


class FiguresTests(SynchronousTestCase):
    """What figures are made of."""

    def test_percentile(self) -> None:
        """A percentile is a time that occurred, in milliseconds."""
        load = Load(100, 1.0, [i / 1000 for i in range(100, 0, -1)])
        self.assertEqual([load.percentile(share) for share in (0, 0.5, 0.99, 1)], [1, 51, 100, 100])

    def test_threads_count(self) -> None:
        """The processor time of a process has that of its threads in it."""
        enough = threading.Event()

        def burn() -> None:
            while not enough.is_set():
                pass

        used = time.thread_time  # noqa: TID251  # it is what the other is compared with
        before, ours = processor_time(os.getpid()), used()
        thread = threading.Thread(target=burn)
        thread.start()
        try:
            # More than this thread has used itself, by more than a clock tick.
            wait_until(lambda: processor_time(os.getpid()) - before > used() - ours + 0.02)
            self.assertGreater(processor_time(os.getpid()) - before, used() - ours)
        finally:
            enough.set()
            thread.join()
