"""What was measured, where and of what: as a table for people, and as JSON to be kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from attrs import define, field

from benchmarks.contestants import REFERENCE, find_program
from benchmarks.scenarios import SCENARIOS, Figures, Scenario


@define
class Report:
    """
    All figures of a run.

    :ivar facts: the command, the date, the machine and the versions.
    :ivar figures: those of each round, by scenario and contestant.
    :ivar reasons: why there are none, by scenario and contestant.
    """

    facts: dict[str, str]
    figures: dict[str, dict[str, list[Figures]]] = field(factory=dict)
    reasons: dict[str, dict[str, str]] = field(factory=dict)

    def note(self, scenario: str, contestant: str, figures: Figures) -> None:
        """Keep the figures of a round."""
        self.figures.setdefault(scenario, {}).setdefault(contestant, []).append(figures)

    def explain(self, scenario: str, contestant: str, reason: str) -> None:
        """Keep why there are no figures."""
        self.reasons.setdefault(scenario, {})[contestant] = reason

    def median(self, scenario: str, contestant: str, heading: str | None = None) -> float | None:
        """Give the median of one figure, the first unless named; None where there is none."""
        rounds = self.figures.get(scenario, {}).get(contestant)
        if not rounds:
            return None
        heading = heading or next(iter(rounds[0]))
        return statistics.median(figures[heading] for figures in rounds)

    def to_json(self) -> str:
        """Give all of it as JSON."""
        members = {"facts": self.facts, "figures": self.figures, "reasons": self.reasons}
        return json.dumps(members, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read what :meth:`to_json` gave."""
        return cls(**json.loads(text))

    def to_text(self) -> str:
        """Give the facts, and a table for each scenario."""
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        for name, scenario in SCENARIOS.items():
            if name in self.figures or name in self.reasons:
                lines += ["", *self._table(scenario)]
        return "\n".join(lines) + "\n"

    def _table(self, scenario: Scenario) -> Iterator[str]:
        rows = self.figures.get(scenario.name, {})
        reasons = self.reasons.get(scenario.name, {})
        reference = REFERENCE if REFERENCE in rows else "plain"
        yield scenario.title
        if rows:
            main, *others = next(iter(rows.values()))[0]
            heads = "".join(f"{heading:>12}" for heading in others)
            yield f"  {'':32}{main:>10}{'(spread)':>20}{'ratio':>8}{heads}"
        base = self.median(scenario.name, reference)
        for name in scenario.names:
            title = scenario.title_of(name)
            if name in reasons:
                yield f"  {title:32}  {reasons[name]}"
            if (median := self.median(scenario.name, name)) is None:
                continue
            values = [figures[main] for figures in rows[name]]
            spread = f"({in_words(min(values))} to {in_words(max(values))})"
            ratio = _ratio(median / base) if base else ""
            cells = [in_words(self.median(scenario.name, name, heading)) for heading in others]
            rest = "".join(f"{cell:>12}" for cell in cells)
            yield f"  {title:32}{in_words(median):>10}{spread:>20}{ratio:>8}{rest}"


def in_words(number: float | None) -> str:
    """Give three digits that count, or all of those before the point."""
    if number is None:
        return ""
    return (
        f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    )


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def facts(arguments: Sequence[str], rounds: int) -> dict[str, str]:
    """Tell how, when, where and of what a run is; to be called as it begins."""
    command = " ".join(["python -m benchmarks", *arguments])
    today = datetime.now(UTC).date().isoformat()
    cores = len(os.sched_getaffinity(0))
    system = f"{platform.system()} {platform.release()}"
    return {
        "command": command,
        "shown": f"medians of {rounds} rounds; ratios to the first row of plain Twisted",
        "date": today,
        "machine": f"{_processor()}, {cores} cores, load {os.getloadavg()[0]:.1f}, {system}",
        "versions": ", ".join(_versions()),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.machine()


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}"
    for title, package in (("twisted_net", "twisted_net"), ("Twisted", "twisted"), ("uvloop",) * 2):
        try:
            yield f"{title} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    for title, program in (("Redis", "redis-server"), ("memcached", "memcached")):
        if (path := find_program(program)) is not None:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            found = re.search(r"\d+\.\d+\.\d+", said.stdout)
            yield f"{title} {found[0] if found else 'of an unknown version'}"
