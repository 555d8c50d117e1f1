"""Finds the regular expressions of a package, how they are used, and texts that could pump them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import frozen

METHODS = ("match", "fullmatch", "search", "finditer", "sub", "split")
"""How a compiled pattern is applied; ``findall`` and ``subn`` do as two of these."""

SAMPLES = 7
"""Characters of one pattern that pieces are made of, at most."""

PREFIXES = 4
"""Openings of one pattern, up to what it repeats, that its pieces are put behind."""


@frozen
class Used:
    """
    A regular expression, and one way in which it is used.

    :param name: the module, and the name that it has there.
    :param method: one of :data:`METHODS`.
    """

    name: str
    pattern: re.Pattern[Any]  # Any: text or bytes
    method: str

    def __str__(self) -> str:
        return f"{self.name}.{self.method}"

    def apply(self, text: str) -> None:
        """Use the pattern on a text."""
        subject: Any = text  # Any: what the pattern takes
        empty: Any = ""  # Any: as above
        if isinstance(self.pattern.pattern, bytes):
            subject, empty = text.encode("latin-1", "replace"), b""
        if self.method == "sub":
            self.pattern.sub(empty, subject)
        elif self.method == "finditer":
            for _ in self.pattern.finditer(subject):
                pass
        else:
            getattr(self.pattern, self.method)(subject)


def package_modules(package: str) -> Iterator[tuple[ModuleType, ast.Module]]:
    """Yield all modules of a package, each with its syntax tree."""
    root = Path(import_module(package).__path__[0])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield import_module(name), ast.parse(path.read_text())


def used_patterns(package: str) -> list[Used]:
    """Return every pattern that a module of a package has as a constant, in each way it is used."""
    found = []
    for module, tree in package_modules(package):
        for name, pattern in _constants(module):
            methods = _methods_of(name.partition("[")[0], tree)
            # Another module's own, which is seen there too, is used here as well.
            full_name = f"{module.__name__}.{name}"
            found += [Used(full_name, pattern, method) for method in methods or METHODS[:3]]
        for call in _calls_of_re(tree):
            source = call.args[0]
            if isinstance(source, ast.Constant) and _function(call) in METHODS:
                pattern = re.compile(source.value)
                found.append(Used(f"{module.__name__}: {source.value!r}", pattern, _function(call)))
    return found


def _calls_of_re(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
        ):
            yield node


def _function(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    return call.func.attr


def _constants(module: ModuleType) -> Iterator[tuple[str, re.Pattern[Any]]]:  # Any: as above
    for name, value in sorted(vars(module).items()):
        if isinstance(value, re.Pattern):
            yield name, value
        elif isinstance(value, (tuple, list, dict)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, item in items:
                if isinstance(item, re.Pattern):
                    yield f"{name}[{key}]", item


def _methods_of(name: str, tree: ast.Module) -> list[str]:
    """Return the methods that are called on a name."""
    also = {"findall": "finditer", "subn": "sub"}
    found = {
        also.get(node.attr, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == name
    }
    return sorted(found & {*METHODS})


def made_later(package: str) -> list[str]:
    """Return where a function makes a pattern that is not written there: by module and line."""
    found = []
    for module, tree in package_modules(package):
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        inner = {id(node) for function in functions for node in ast.walk(function)}
        for call in _calls_of_re(tree):
            known = isinstance(call.args[0], ast.Constant) and _function(call) in METHODS
            if id(call) in inner and not known and _function(call) not in ("escape", "purge"):
                found.append(f"{module.__name__}: {ast.unparse(call.args[0])}")
    return found


def pumps(pattern: re.Pattern[Any], size: int) -> Iterator[str]:  # Any: as above
    """Yield texts of about a size that repeat what the pattern repeats, and end as it does not."""
    source = pattern.pattern
    text = source.decode("latin-1") if isinstance(source, bytes) else source
    tree = _parser.parse(text, pattern.flags & ~re.UNICODE if isinstance(source, bytes) else 0)
    samples = list(dict.fromkeys(_samples(tree)))[:SAMPLES]
    prefixes = list(dict.fromkeys(["", *_openings(tree)]))[:PREFIXES]
    pieces = [*map("".join, product(samples, repeat=2)), *prefixes[1:], _shortest(tree)]
    for prefix in prefixes:
        for piece in samples if prefix else filter(None, samples + pieces):
            pumped = piece * (size // len(piece))
            yield prefix + pumped + "\x00"
            yield prefix + pumped + "\n"


_parser: Any = import_module("re._parser")  # Any: a module of the library that has no types


def _samples(tree: Any) -> Iterator[str]:  # Any: lists of operators and operands
    """Yield characters that the parts of a pattern are about."""
    for operator, operand in tree:
        name = str(operator)
        if name in ("LITERAL", "NOT_LITERAL"):
            yield chr(operand)
        elif name == "RANGE":
            yield chr(operand[0])
            yield chr(operand[1])
        elif name == "CATEGORY":
            yield {"SPACE": " ", "DIGIT": "0"}.get(str(operand).rpartition("_")[2], "a")
        elif name == "ANY":
            yield "a"
        elif name == "IN":
            if str(operand[0][0]) == "NEGATE":
                yield "a"
            yield from _samples(operand)
        elif name != "AT":
            for part in _parts(operand):
                yield from _samples(part)


def _openings(tree: Any) -> Iterator[str]:  # Any: as above
    """Yield what may stand before each repetition of a pattern."""
    before = ""
    for operator, operand in tree:
        if "REPEAT" in str(operator):
            yield before
        before += _shortest([(operator, operand)])


def _shortest(tree: Any) -> str:  # Any: as above
    """Return a short text that a part matches, or nearly."""
    text = ""
    for operator, operand in tree:
        name = str(operator)
        if name == "LITERAL":
            text += chr(operand)
        elif name == "IN":
            text += next(_samples([(operator, operand)]), "")
        elif name in ("ANY", "NOT_LITERAL"):
            text += "a"
        elif "REPEAT" in name:
            text += _shortest(operand[2]) * min(operand[0], 8)
        elif name == "BRANCH":
            text += _shortest(operand[1][0])
        elif name in ("SUBPATTERN", "ATOMIC_GROUP"):
            for part in _parts(operand):
                text += _shortest(part)
    return text


def _parts(operand: Any) -> Iterable[Any]:  # Any: as above
    """Return the patterns within an operand, however deep they are in its tuples."""
    if isinstance(operand, _parser.SubPattern):
        return [operand]
    if isinstance(operand, (tuple, list)):
        return [part for item in operand for part in _parts(item)]
    return []
