"""Checks the names and arguments of Python code that is shown, without running it."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import typing
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

PACKAGE = "twisted_net"

FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

UNKNOWN = object()
"""The value of an expression of which nothing is known."""


class Instance(NamedTuple):
    """
    Some object of a class.

    :param item: the class of what is in it, if it is a list.
    """

    cls: type
    item: type | None = None


class Names(ast.NodeVisitor):
    """
    The names that a page's code has defined so far, and what they stand for.

    Scopes are not told apart: the code of a page is read as one program. What is known of a value
    is followed through assignments, calls, ``await``, ``async with`` and ``for``.

    :param assumed: names that the reader has, with their values.
    :ivar mistakes: what is wrong with the code that was read, each with its line.
    """

    def __init__(self, assumed: dict[str, object]) -> None:
        self.mistakes: list[str] = []
        self._known: dict[str, object] = {**vars(builtins), **assumed}

    def read(self, text: str, name: str) -> None:
        """Read the next code of the page; a line that does not compile is a mistake."""
        try:
            tree = compile(text, name, "exec", FLAGS)
        except SyntaxError as error:
            self.mistakes.append(f"line {error.lineno}: {error.msg}")
            return
        for node in ast.walk(tree):  # A function may use what is only defined after it.
            if isinstance(node, ast.arg):
                self._known[node.arg] = self._annotated(node.annotation)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._known[node.name] = UNKNOWN
        self.visit(tree)

    def visit_Import(self, node: ast.Import) -> None:
        """Import the module."""
        for alias in node.names:
            self._import(node, alias.name, None, alias.asname or alias.name.split(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Import the names."""
        for alias in node.names:
            self._import(node, node.module or "", alias.name, alias.asname or alias.name)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Define what is assigned to."""
        value = self._value(node.value)
        for target in node.targets:
            self._define(target, value)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        """Define what stands behind ``as``."""
        for item in node.items:
            value = self._value(item.context_expr)
            if item.optional_vars is not None:
                entered = self._result(value, "__aenter__")
                # One of a generator's has no method here: what it yields is known already.
                self._define(item.optional_vars, value if entered is UNKNOWN else entered)
        self._visit_all(node.body)

    def visit_For(self, node: ast.For) -> None:
        """Define the variable of the loop."""
        self._define(node.target, _item(self._value(node.iter)))
        self._visit_all(node.body)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        """Define the variable of the loop."""
        value = self._value(node.iter)
        self._define(node.target, self._result(self._result(value, "__aiter__"), "__anext__"))
        self._visit_all(node.body)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """Define the exception."""
        if node.name is not None:
            self._known[node.name] = UNKNOWN
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Define the variable of the loop."""
        self._define(node.target, _item(self._value(node.iter)))
        self._visit_all(node.ifs)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Look at the result only: the arguments are known."""
        self._value(node.body)

    def generic_visit(self, node: ast.AST) -> None:
        """Look at the parts, those of an expression in the order in which they run."""
        if isinstance(node, ast.expr):
            self._value(node)
        else:
            super().generic_visit(node)

    def _visit_all(self, nodes: typing.Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _mistake(self, node: ast.AST, text: str) -> None:
        self.mistakes.append(f"line {getattr(node, 'lineno', '?')}: {text}")

    def _import(self, node: ast.AST, module: str, name: str | None, bound: str) -> None:
        try:
            found: object = importlib.import_module(module)
            if name is None:
                found = importlib.import_module(bound) if bound in module else found
            elif module != "twisted.internet" or name != "reactor":  # Which would install one.
                found = getattr(found, name)
            else:
                found = UNKNOWN
        except (ImportError, AttributeError) as error:
            found = UNKNOWN
            self._mistake(node, str(error))
        self._known[bound] = found

    def _define(self, target: ast.expr, value: object) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self._known[node.id] = value if node is target else UNKNOWN

    def _value(self, node: ast.expr) -> object:
        """Return what is known of an expression's value, all of whose parts are checked."""
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load) and node.id not in self._known:
                self._mistake(node, f"{node.id} is not defined on this page")
            return self._known.setdefault(node.id, UNKNOWN)
        if isinstance(node, ast.Await):
            return self._value(node.value)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, self._value(node.value))
        if isinstance(node, ast.Call):
            return self._call(node, self._value(node.func))
        generators = getattr(node, "generators", [])
        self._visit_all(generators)
        parts = [part for part in ast.iter_child_nodes(node) if part not in generators]
        self._visit_all(parts)
        return UNKNOWN

    def _attribute(self, node: ast.Attribute, owner: object) -> object:
        if isinstance(owner, Instance):
            if not _has(owner.cls, node.attr):
                self._mistake(node, f"{owner.cls.__name__} has no attribute {node.attr}")
            found = inspect.getattr_static(owner.cls, node.attr, UNKNOWN)
            if isinstance(found, property):
                return _returned(found.fget, owner)
            if inspect.isfunction(found):
                return found.__get__(object())  # Bound, so that self is not an argument.
            return getattr(owner.cls, node.attr, UNKNOWN) if _binds(found) else UNKNOWN
        if inspect.ismodule(owner) or inspect.isclass(owner):
            if not hasattr(owner, node.attr):
                self._mistake(node, f"{owner.__name__} has no attribute {node.attr}")
            return getattr(owner, node.attr, UNKNOWN)
        return UNKNOWN

    def _call(self, node: ast.Call, function: object) -> object:
        self._visit_all(node.args)
        self._visit_all([keyword.value for keyword in node.keywords])
        if (getattr(function, "__module__", None) or "").split(".")[0] == PACKAGE:
            mistake = _argument_mistake(node, function)
            if mistake is not None:
                self._mistake(node, f"{getattr(function, '__qualname__', function)}: {mistake}")
        return Instance(function) if inspect.isclass(function) else _returned(function, UNKNOWN)

    def _annotated(self, annotation: ast.expr | None) -> object:
        if isinstance(annotation, ast.Name):
            found = self._known.get(annotation.id)
            if inspect.isclass(found) and found.__module__.split(".")[0] == PACKAGE:
                return Instance(found)
        return UNKNOWN

    def _result(self, value: object, method: str) -> object:
        """Return what a special method of *value* returns."""
        if isinstance(value, Instance):
            return _returned(getattr(value.cls, method, None), value)
        return UNKNOWN


def _argument_mistake(node: ast.Call, function: Any) -> str | None:  # Any: some callable
    """Return what is wrong with the arguments of a call of ours, or None."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # An exception's, which is C.
        return None
    positional = [one for one in node.args if not isinstance(one, ast.Starred)]
    keywords = {one.arg: None for one in node.keywords if one.arg is not None}
    unpacked = len(positional) + len(keywords) < len(node.args) + len(node.keywords)
    try:
        bound = (signature.bind_partial if unpacked else signature.bind)(*positional, **keywords)
    except TypeError as error:
        return str(error)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD and parameter.name in bound.arguments:
            options = typing.get_args(typing.get_type_hints(function).get(parameter.name))
            for name in bound.arguments[parameter.name]:
                if options and name not in options[0].__annotations__:
                    return f"got an unexpected keyword argument '{name}'"
    return None


def _binds(found: object) -> bool:
    """Whether a static or class method was found, which needs no instance."""
    return isinstance(found, staticmethod | classmethod)


def _has(cls: type, name: str) -> bool:
    """Whether the instances of *cls* have an attribute; one of other packages may have any."""
    if hasattr(cls, name) or cls.__module__.split(".")[0] != PACKAGE:
        return True
    for base in cls.__mro__:
        if name in vars(base).get("__annotations__", {}):
            return True
        with suppress(OSError, TypeError):
            if re.search(rf"\bself\.{name}\b[^=\n]* = ", inspect.getsource(base)):
                return True
    return False


def _item(value: object) -> object:
    """Return an instance of the class of a list's items."""
    item = value.item if isinstance(value, Instance) else None
    return UNKNOWN if item is None else Instance(item)


def _returned(function: object, owner: object) -> object:
    """Return what a function is annotated to return, once it was waited for or entered."""
    try:
        hint = typing.get_type_hints(function)["return"]
    except (KeyError, NameError, TypeError, AttributeError):
        return UNKNOWN
    if hint is typing.Self:
        return owner
    origin, inner = typing.get_origin(hint), [*typing.get_args(hint), None][0]
    if origin is list:
        return Instance(list, inner if inspect.isclass(inner) else None)
    if origin in (Deferred, AsyncIterator, AbstractAsyncContextManager):
        hint = inner
    return Instance(hint) if inspect.isclass(hint) else UNKNOWN
