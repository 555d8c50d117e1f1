"""Callbacks of an application: checked when they are passed, as they are called much later."""

from __future__ import annotations

import inspect
from collections.abc import Callable


def check_callback(
    name: str, callback: Callable[..., object], *arguments: str, plain: bool = False
) -> None:
    """
    Check that a callback can be called with so many arguments, by position.

    :param name: what it is, for the error.
    :param arguments: what it is called with, in words.
    :param plain: whether it must not be ``async`` or a generator, as its value is not awaited.
    :raises TypeError: if it is or does otherwise.
    """
    if not callable(callback):
        raise TypeError(f"{name} must be callable, not {type(callback).__name__}")
    if _yields(callback) or (plain and _is_async(callback)):
        kinds = "neither async nor a generator" if plain else "no generator"
        raise TypeError(f"{name} must be a function that returns: {kinds}")
    try:
        signature = inspect.signature(callback)
    except ValueError:
        return  # a builtin that does not tell
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{name} is called with ({', '.join(arguments)}): {error}") from None


def _is_async(callback: object) -> bool:
    called = type(callback).__call__
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(called)


def _yields(callback: object) -> bool:
    return any(
        inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
        for function in (callback, type(callback).__call__)
    )
