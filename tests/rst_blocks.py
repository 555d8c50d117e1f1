"""The literal blocks of the documentation, each with the language it is written in."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

DIRECTIVE = re.compile(r"^( *)\.\. (code-block|literalinclude):: (\S+)$")
LITERAL = re.compile(r"^( *)(?!\.\. )\S?.*::$")
TABLE = re.compile(r"^\[\[?[a-z_.]+\]\]?$", re.MULTILINE)
"""The header of a TOML table of ours; the sections of a unit of systemd are capitalized."""

PYTHON = re.compile(
    r"^(?:from [\w.]+ import |import \w|async |await |def |class |@\w|with |for .*:$|\w+ = )"
    r"|(?:^|[ (])[A-Z]\w*[a-z]\w*\(",
    re.MULTILINE,
)
"""A statement that begins a line, or a class that is called."""


class Block(NamedTuple):
    """
    A block of a page.

    :param page: path from the root of the repository.
    :param line: number of the line that announces it.
    :param language: ``python`` or ``toml``; what a directive says; or empty.
    :param included: whether *text* is that of an example file.
    """

    page: str
    line: int
    language: str
    text: str
    included: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return the README and the pages of the documentation."""
    return [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]


def language_of(text: str) -> str:
    """Return ``toml`` or ``python`` for what looks like it, and else an empty string."""
    if TABLE.match(text):
        return "toml"
    return "python" if PYTHON.search(text) and not text.startswith("$ ") else ""


def blocks(path: Path) -> Iterator[Block]:
    """Iterate over the literal blocks and the included Python files of a page, from the top."""
    page, lines = str(path.relative_to(ROOT)), path.read_text().splitlines()
    for i, line in enumerate(lines):
        directive = DIRECTIVE.match(line)
        if directive is not None and directive[2] == "literalinclude":
            file = path.parent / directive[3]
            if file.suffix == ".py":
                yield Block(page, i + 1, "python", file.read_text(), included=True)
            continue
        start = directive or LITERAL.match(line)
        if start is None:
            continue
        text = _indented(lines[i + 1 :], len(start[1]))
        yield Block(page, i + 1, directive[3] if directive else language_of(text), text)


def _indented(lines: list[str], indent: int) -> str:
    """Return the first lines that are indented by more than *indent*, without that."""
    kept = []
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        kept.append(line)
    return textwrap.dedent("\n".join(kept)).strip("\n") + "\n"
