"""Finds the functions of a package that take bytes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import CodeType

from tests.complexity.patterns import package_modules

BYTES = {"bytes", "bytearray", "memoryview", "bytes | bytearray", "bytes | memoryview"}
"""How the annotation of such a parameter reads."""


def entry_points(package: str) -> list[str]:
    """Return all public functions and methods with such a parameter, by module and name."""
    found = []
    for module, tree in package_modules(package):
        found += [f"{module.__name__}.{name}" for name in _takers(tree, "")]
    return found


def _takers(tree: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from _takers(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            kinds = {ast.unparse(one.annotation) for one in arguments if one.annotation}
            if kinds & BYTES and not node.name.startswith("_"):
                yield f"{prefix}{node.name}"


def name_of(code: CodeType) -> str:
    """Return the name of a function of a package as :func:`entry_points` does."""
    path = code.co_filename.removesuffix(".py").removesuffix("/__init__")
    parts = path.split("/")
    if "twisted_net" not in parts:
        return ""
    parts = parts[len(parts) - 1 - parts[::-1].index("twisted_net") :]
    return ".".join([*parts, code.co_qualname])
