from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_net

PACKAGE = Path(twisted_net.__file__).parent
FACES = [
    path
    for path in sorted(PACKAGE.rglob("__init__.py"))
    if path.parent != PACKAGE and "lazy_exports" in path.read_text(encoding="utf-8")
]


def module_name(path: Path) -> str:
    """The dotted name of a package, by its ``__init__.py``."""
    return ".".join(["twisted_net", *path.parent.relative_to(PACKAGE).parts])


class FaceTests(SynchronousTestCase):
    """The public names of each folder are what its ``__init__`` says."""

    def test_faces(self) -> None:
        """There are packages that name what is public."""
        self.assertIn(PACKAGE / "commands" / "__init__.py", FACES)

    def test_lists_agree(self) -> None:
        """Type checkers are told the same names as the interpreter, from the same modules."""
        for path in FACES:
            package = module_name(path)
            with self.subTest(package=package):
                told = {
                    alias.asname: f"{node.module}.{alias.name}"
                    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                    if isinstance(node, ast.ImportFrom) and node.module != "twisted_net"
                    for alias in node.names
                    if alias.asname is not None
                }
                module = import_module(package)
                self.assertEqual(sorted(told), module.__all__)
                for name, home in told.items():
                    defined_in, _, _ = home.rpartition(".")
                    found = getattr(import_module(defined_in), name)
                    self.assertIs(getattr(module, name), found, name)

    def test_nothing_else(self) -> None:
        """A name that is not public is no attribute of the package."""
        for path in FACES:
            with self.subTest(path=path):
                module = import_module(module_name(path))
                with self.assertRaisesRegex(AttributeError, "has no attribute 'NoSuchName'"):
                    _ = module.NoSuchName
                self.assertEqual(dir(module), module.__all__)

    def test_cheap(self) -> None:
        """Importing the packages imports neither Twisted nor treq nor any of their modules."""
        names = ", ".join(module_name(path) for path in FACES)
        code = f"import sys, {names}; print(*sys.modules)"
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        imported = set(found.stdout.split())
        self.assertEqual(imported & {"twisted", "treq", "msgspec", "attr"}, set())
