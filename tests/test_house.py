"""The package keeps to the bounds and habits that its maintainers set themselves."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_net

PACKAGE = Path(twisted_net.__file__).parent

MAX_ENTRIES = 27
"""Modules and folders of the package, and modules of one folder."""

MAX_LINES = 600
"""Lines of one module."""

MAX_FUNCTION = 60
"""Lines of one function, its docstring not counted."""


VAGUE = ("Give", "Gives", "Tell", "Tells")
"""Words with which no docstring of a function begins."""


def modules() -> Iterator[tuple[str, str, ast.Module]]:
    """Iterate over the modules: path within the package, text, syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield str(path.relative_to(PACKAGE)), text, ast.parse(text)


class SizeTests(SynchronousTestCase):
    """No part is too large to be read in one sitting."""

    def test_folders(self) -> None:
        """The package has at most so many entries, and each folder so many modules."""
        entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
        self.assertLessEqual(len(entries), MAX_ENTRIES)
        folders = [path for path in PACKAGE.rglob("*") if (path / "__init__.py").is_file()]
        self.assertIn(PACKAGE / "http" / "cache", folders)
        for folder in folders:
            self.assertLessEqual(len(list(folder.glob("*.py"))), MAX_ENTRIES, folder.name)

    def test_modules(self) -> None:
        """No module is longer than its bound."""
        for path, text, _ in modules():
            self.assertLessEqual(text.count("\n"), MAX_LINES, path)

    def test_functions(self) -> None:
        """No function is longer than its bound."""
        for path, _, tree in modules():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    docstring = ast.get_docstring(node, clean=False) or ""
                    lines = (node.end_lineno or 0) - node.lineno - docstring.count("\n")
                    self.assertLessEqual(lines, MAX_FUNCTION, f"{path}: {node.name}")


class NameTests(SynchronousTestCase):
    """Names tell parts apart."""

    def test_classes(self) -> None:
        """A class name occurs once in the package."""
        places = defaultdict(list)
        for path, _, tree in modules():
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(path)
        self.assertIn("CommandFactory", places)
        twice = {name: found for name, found in places.items() if len(found) > 1}
        self.assertEqual(twice, {})

    def test_reactors(self) -> None:
        """No reactor is passed as ``Any``: ``net/reactor.py`` names what is needed of it."""
        untyped = [path for path, text, _ in modules() if re.search(r"reactor: Any\b", text)]
        self.assertEqual(untyped, [])


WALL_CLOCK = {
    # Displayed times: of sessions, slow commands, spikes of latency, and ``TIME``.
    "coap/server.py",
    "service/net.py",
    "tcp/server.py",
    "udp/server.py",
    # The validity of certificates.
    "cli/serve.py",
    "dtls/server.py",
    # Dates of HTTP: ``Date``, ``Expires``, ``Last-Modified``, ``Retry-After``.
    "http/agent.py",
    "http/cache/agent.py",
    "http/retry/agent.py",
}
"""The modules that name the wall clock; all others are passed ``wall``, and few need it."""

STEADY_CLOCK = {
    "net/steady_clock.py",
    # In threads of their own, where no reactor's clock is.
    "http/cache/sqlite_file.py",
    "http/cache/sqlite_schema.py",
    "http/cache/stamps.py",
    # Logs are of the process, and threads write them, too.
    "net/log_limiter.py",
    # Before a reactor runs, which does not run while it waits.
    "net/files.py",
    # Its state is of a file, not of a connection.
    "service/users_file.py",
    # Processor time of a thread, which is no time of day.
    "ops/turn_sampler.py",
}
"""The modules that read a steady clock of the system, and not that of the reactor."""

STEADY_NAMES = {
    *("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
    *("clock_gettime", "CLOCK_BOOTTIME"),
}
CLOCKLESS_NAMES = {
    *("sleep", "struct_time", "strptime", "mktime"),
    *("process_time", "pthread_getcpuclockid"),
}


def clocks_read(tree: ast.Module) -> Iterator[str]:
    """Iterate over the functions of the standard library that a module reads the time by."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.module in ("time", "twisted.python.runtime"):
                yield from (name.name for name in node.names)
            elif node.module == "email.utils":
                yield from (name.name for name in node.names if name.name == "formatdate")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dates = node.value.id in ("datetime", "date") and node.attr in (
                "now",
                "today",
                "utcnow",
            )
            if node.value.id == "time" or dates:
                yield node.attr


def plain_queues(tree: ast.Module) -> Iterator[str]:
    """Iterate over the attributes that are plain dictionaries asked for their first key."""
    plain = {
        ast.unparse(node.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("dict[")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "iter":
            name = re.sub(r"\.(keys|values|items)\(\)$", "", ast.unparse(node.args[0]))
            if name in plain:
                yield name


class TableTests(SynchronousTestCase):
    """Tables take as long when they are full as before."""

    def test_plain_queues(self) -> None:
        """
        No plain dictionary is asked for its oldest key.

        It walks over the places of all keys that were removed in front of it. An ``OrderedDict``
        does not, nor does ``net/bounded_table.py``.
        """
        queue = "class A:\n def a(self):\n  self.b: dict[int, int] = {}\n"
        for use in ("self.b", "self.b.items()"):
            self.assertEqual(
                list(plain_queues(ast.parse(f"{queue}  next(iter({use}))"))), ["self.b"]
            )
        self.assertEqual(list(plain_queues(ast.parse(f"{queue}  next(iter(self.c))"))), [])
        found = {path: names for path, _, tree in modules() if (names := list(plain_queues(tree)))}
        self.assertEqual(found, {})


class ClockTests(SynchronousTestCase):
    """Time is passed as an argument: ``now`` is steady, and ``wall`` is for display and dates."""

    def reading(self, *, steady: bool) -> set[str]:
        """Return the modules that read a steady clock, or any other one."""
        return {
            path
            for path, _, tree in modules()
            for name in clocks_read(tree)
            if name not in CLOCKLESS_NAMES and (name in STEADY_NAMES) == steady
        }

    def test_wall(self) -> None:
        """
        No other module reads the wall clock.

        If this fails, ask what the time is for. Durations, deadlines, rates and ages are of the
        reactor's clock. What is displayed or written into a protocol is passed as ``wall``.
        """
        self.assertEqual(self.reading(steady=False), WALL_CLOCK)

    def test_steady(self) -> None:
        """No other module goes past the reactor's clock: tests could not set it."""
        self.assertEqual(self.reading(steady=True), STEADY_CLOCK)

    def test_found(self) -> None:
        """Whichever way the time is read, it is found."""
        for text in (
            "import time; time.time()",
            "import time; x = time.time",
            "import time; time.time_ns()",
            "import time; time.localtime()",
            "from time import time as clock",
            "from datetime import datetime; datetime.now(UTC)",
            "from datetime import date; date.today()",
            "from twisted.python.runtime import seconds",
            "from email.utils import formatdate; formatdate()",
            "import time; time.monotonic()",
        ):
            self.assertEqual(len(list(clocks_read(ast.parse(text)))), 1, text)
        for text in ("clock.time()", "datetime.fromtimestamp(wall, UTC)", "self.time = 1"):
            self.assertEqual(list(clocks_read(ast.parse(text))), [], text)


class DocstringTests(SynchronousTestCase):
    """Docstrings say at their first line what a thing is."""

    def test_first_lines(self) -> None:
        """Each module and public class has one, and its first line is one sentence."""
        for path, _, tree in modules():
            first = (ast.get_docstring(tree) or "").partition("\n")[0]
            self.assertTrue(first.endswith("."), f"{path}: {first!r}")
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    self.assertTrue(ast.get_docstring(node), f"{path}: {node.name}")

    def test_plain_words(self) -> None:
        """A function returns or raises; it does not give or tell."""
        for path, _, tree in modules():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    first = (ast.get_docstring(node) or "").partition(" ")[0]
                    self.assertNotIn(
                        first, ("Give", "Gives", "Tell", "Tells"), f"{path}: {node.name}"
                    )
