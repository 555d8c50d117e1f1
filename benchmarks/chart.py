"""Draws a report as an SVG: a panel of horizontal bars for each scenario, ours highlighted."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import zip_longest
from xml.sax.saxutils import escape

from benchmarks.contestants import CONTESTANTS
from benchmarks.report import Report, in_words
from benchmarks.scenarios import SCENARIOS, Scenario

WIDTH = 1120
MARGIN = 36
GAP = 44
PANEL = (WIDTH - 2 * MARGIN - GAP) / 2
LABELS = 206
VALUES = 58
BARS = PANEL - LABELS - VALUES
ROW = 22
BAR = 14
TITLE = 48
"""Heights and widths, in units of the drawing."""

CUT = 3.0
"""A bar longer than so many medians of its panel is cut, or the others could not be told apart."""

INK, FAINT, GRID = "#1f2937", "#6b7280", "#e5e7eb"
OURS, OTHERS = "#0f766e", "#b6bec9"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def draw(report: Report) -> str:
    """Give the drawing of the medians of a report."""
    scenarios = [SCENARIOS[name] for name in SCENARIOS if report.figures.get(name)]
    body: list[str] = []
    top = 112.0
    for pair in zip_longest(scenarios[::2], scenarios[1::2]):
        height = 0.0
        for i, scenario in enumerate(pair):
            if scenario is not None:
                left = MARGIN + i * (PANEL + GAP)
                body += _panel(report, scenario, left, top)
                height = max(height, TITLE + ROW * len(_bars(report, scenario)) + 30)
        top += height
    head = [
        _text(MARGIN, 44, "What it costs, and what the rivals cost", 24, INK, weight=700),
        _text(MARGIN, 68, report.facts.get("versions", ""), 13, FAINT),
        _text(MARGIN, 87, _place(report), 13, FAINT),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" '
        f'font-family="{FONT}" role="img">\n'
        "<title>Costs of twisted_net and of its rivals; less is better</title>\n"
        f'<rect width="{WIDTH}" height="{top:.0f}" rx="10" fill="#ffffff"/>\n'
        + "\n".join([*head, *body])
        + "\n</svg>\n"
    )


def _place(report: Report) -> str:
    facts = [report.facts[name] for name in ("machine", "date") if name in report.facts]
    return "; ".join([*facts, "less is better everywhere"])


def _bars(report: Report, scenario: Scenario) -> list[tuple[str, float]]:
    """Give the contestants that have figures, the least first."""
    found = [(name, report.median(scenario.name, name)) for name in scenario.names]
    return sorted(
        ((name, median) for name, median in found if median is not None), key=lambda bar: bar[1]
    )


def _panel(report: Report, scenario: Scenario, left: float, top: float) -> Iterator[str]:
    bars = _bars(report, scenario)
    values = [value for _, value in bars]
    longest = min(max(values), CUT * statistics.median(values)) or 1.0
    yield _text(left, top + 16, scenario.title, 15, INK, weight=600)
    yield _text(left, top + 34, scenario.unit, 12, FAINT)
    start = left + LABELS
    bottom = top + TITLE + ROW * len(bars)
    yield (
        f'<line x1="{start:.1f}" y1="{top + TITLE - 3:.1f}" x2="{start:.1f}" '
        f'y2="{bottom - 3:.1f}" stroke="{GRID}"/>'
    )
    for i, (name, value) in enumerate(bars):
        contestant = CONTESTANTS[name]
        y = top + TITLE + ROW * i
        width = BARS * min(value / longest, 1.0)
        colour, weight = (OURS, 600) if contestant.ours else (OTHERS, 400)
        ink = OURS if contestant.ours else INK
        baseline = y + BAR - 3
        yield _text(start - 10, baseline, scenario.title_of(name), 12.5, ink, weight, "end")
        yield (
            f'<rect x="{start:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{BAR}" '
            f'rx="2" fill="{colour}"/>'
        )
        if value > longest:
            yield _break(start + width - 16, y)
        yield _text(start + width + 7, baseline, in_words(value), 12.5, ink, weight)


def _break(x: float, y: float) -> str:
    """Show that a bar goes on: a slanted gap."""
    return (
        f'<polygon points="{x:.1f},{y + BAR + 1:.1f} {x + 4:.1f},{y - 1:.1f} '
        f'{x + 9:.1f},{y - 1:.1f} {x + 5:.1f},{y + BAR + 1:.1f}" fill="#ffffff"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    size: float,
    colour: str,
    weight: int = 400,
    anchor: str = "start",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'
    )
