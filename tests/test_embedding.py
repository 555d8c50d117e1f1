"""Every public constructor and function refuses what cannot be right, in one clear TypeError."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from typing import Any, is_typeddict

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.test_init import FACES, module_name
from twisted_net.commands import Commands
from twisted_net.config import Record
from twisted_net.config.type_checks import signature_check
from twisted_net.http import Client, HttpSettings
from twisted_net.tcp import CommandFactory, Limits
from twisted_net.testing import MemoryWeb, StubResponse

MADE_BY_US = frozenset(
    {
        # Values that the package makes, and others read.
        *("ApplicationContext", "Attempt", "CoapResponse", "DatagramCounts", "Entry", "Fields"),
        *(
            "GroupResponse",
            "HeaderFields",
            "HttpRequest",
            "Instance",
            "InstanceChange",
            "Loaded",
            "Observation",
        ),
        *("Request", "Response", "SecurePeer", "ServerSentEvent", "Session", "SocketSpec"),
        *("StreamedResponse", "TopicMessage", "TransferProgress", "WebLink"),
        # Called once for each request.
        *("acknowledge", "identity_of", "log_attempt"),
        # Takes any reactor, and any clock.
        *("steady", "steady_wall"),
        # Takes what treq's takes, and refuses it as treq does.
        "HTTPClient",
    }
)
"""Public names whose arguments are not checked."""


class Wrong:
    """Is nothing that anything public takes."""


def public() -> Iterator[tuple[str, Any]]:
    """Iterate over the public names, and what they are."""
    for path in FACES:
        package = import_module(module_name(path))
        for name in package.__all__:
            yield name, getattr(package, name)
    for kind in (MemoryWeb, StubResponse):
        yield kind.__name__, kind


def takes_arguments(value: Any) -> bool:
    """Whether a public name is called by those who embed."""
    if isinstance(value, type):
        special = issubclass(value, BaseException | Record | Enum) or is_typeddict(value)
        return not special and not getattr(value, "_is_protocol", False)
    return inspect.isfunction(value)


def called() -> Iterator[tuple[str, Any, Callable[..., Any]]]:
    """Iterate over the names whose arguments are checked: what is called, and its code."""
    for name, value in public():
        if takes_arguments(value) and name not in MADE_BY_US:
            yield name, value, vars(value)["__init__"] if isinstance(value, type) else value


class PublicTests(SynchronousTestCase):
    """The arguments of all that is public."""

    def test_checked(self) -> None:
        """Each public class and function is checked, or in the list of those that are not."""
        unchecked = [name for name, _, code in called() if not hasattr(code, "__wrapped__")]
        self.assertEqual(unchecked, [])
        names = {name for name, value in public() if takes_arguments(value)}
        self.assertEqual(MADE_BY_US - names, set())
        self.assertGreater(len(names), 60)

    def test_wrong_type(self) -> None:
        """Each argument is refused by its name, if it is of a type that it cannot have."""
        unchecked = set()
        for name, value, code in called():
            known = signature_check(inspect.unwrap(code), bound=isinstance(value, type))
            for argument in known.names:
                if argument not in known.checks:
                    unchecked.add(f"{name}.{argument}")
                    continue
                for wrong in (Wrong(), Wrong):
                    if known.checks[argument].allows(wrong):
                        continue
                    with self.subTest(name=name, argument=argument):
                        with self.assertRaises(TypeError) as raised:
                            value(**{argument: wrong})
                        said = f"{name}: {argument} must be .*, not (a|the class) Wrong"
                        self.assertRegex(str(raised.exception), said)
        self.assertEqual(unchecked, UNCHECKED)

    def test_unknown_keyword(self) -> None:
        """A keyword that there is not is refused, and those that there are shown."""
        for name, value, code in called():
            if signature_check(inspect.unwrap(code)).takes_any:
                continue
            with self.subTest(name=name):
                with self.assertRaises(TypeError) as raised:
                    value(no_such_argument=1)
                said = str(raised.exception)
                self.assertRegex(said, f"{name}: there is no argument no_such_argument")
        said = "Client: there is no argument setings; did you mean settings?"
        with self.assertRaisesRegex(TypeError, re.escape(said)):
            Client(MemoryReactorClock(), setings=HttpSettings())  # type: ignore[call-arg]

    def test_records(self) -> None:
        """So are arguments by position and unknown fields of records."""
        records = [(name, value) for name, value in public() if is_record(value)]
        self.assertGreater(len(records), 20)
        for name, record in records:
            wrong: tuple[tuple[tuple[object, ...], dict[str, object]], ...]
            wrong = (((1,), {}), (({},), {}), ((), {"zzz": 1}))
            for args, fields in wrong:
                with self.assertRaises(TypeError) as raised:
                    record(*args, **fields)
                self.assertIn(name, str(raised.exception))

    def test_swapped(self) -> None:
        """Two arguments that are swapped are told apart."""
        said = "CommandFactory: reactor must be a reactor, not a Commands"
        with self.assertRaisesRegex(TypeError, re.escape(said)):
            CommandFactory(Commands(), Clock())  # type: ignore[arg-type]  # on purpose
        said = "CommandFactory: limits must be a Limits or None, not a dict; write Limits(**…)"
        with self.assertRaisesRegex(TypeError, re.escape(said)):
            CommandFactory(Clock(), Commands(), {"max_line": 100})  # type: ignore[arg-type]
        CommandFactory(Clock(), Commands(), Limits(max_line=100))


def is_record(value: Any) -> bool:
    """Whether a public name is a record."""
    return isinstance(value, type) and issubclass(value, Record) and value is not Record


UNCHECKED = {
    # Any value of a type variable, or a class that Twisted does not export.
    *("Layers.defaults", "listen_tcp.port"),
}
"""Arguments whose annotations say nothing while the program runs."""
