"""The stack of a thread is described by the application's functions, in few words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import CodeType, FrameType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.characters import printable
from twisted_net.ops.stack_place import MAX_FILE, MAX_FRAMES, MAX_FUNCTION, Place, place_of


def module(name: str, source: str, file: str = "/srv/app/code.py") -> dict[str, Any]:
    """Run source code as a module; return its globals."""  # Any: whatever it defines
    names: dict[str, Any] = {"__name__": name}
    exec(compile(source, file, "exec"), names)
    return names


def run(function: Callable[[], object]) -> None:
    """Stand in for the loop of a reactor."""
    function()


class PlaceTests(SynchronousTestCase):
    """:func:`place_of`."""

    def setUp(self) -> None:
        self.places: list[Place] = []
        self.loops: tuple[CodeType, ...] = (run.__code__,)

    def frame_seen(self, frame: FrameType | None) -> None:
        """Describe a frame, as the thread would."""
        assert frame is not None
        self.places.append(place_of(frame, self.loops))

    def look(self) -> None:
        """Describe the caller."""
        self.frame_seen(sys._getframe(1))

    def looking(self, name: str, source: str = "def call():\n look()\n") -> Any:  # Any: as above
        """Return the function ``call`` of a module that looks."""
        names = module(name, source, f"/srv/app/{name.rpartition('.')[2]}.py")
        names["look"] = self.look
        return names["call"]

    def test_callback(self) -> None:
        """A function that the loop calls is named with its module, its file and the line."""
        run(self.looking("shop.orders"))
        self.assertEqual(
            self.places, [Place("shop.orders.call", "shop.orders.call (orders.py:2)", "")]
        )

    def test_within(self) -> None:
        """The outermost function is the callback; where it is is the innermost one."""
        inner = self.looking("shop.prices")
        outer = module("shop.orders", "class A:\n def call(self):\n  f()\n")
        outer["f"] = inner
        run(outer["A"]().call)
        (place,) = self.places
        self.assertEqual(place.callback, "shop.orders.A.call (code.py:3)")
        self.assertEqual(place.where, "shop.prices.call (prices.py:2)")

    def test_machinery(self) -> None:
        """Functions of Twisted and Python that call it, or that it calls, are not named."""
        clock = Clock()
        inner = self.looking("json.decoder")
        outer = module("shop.orders", "def call(_):\n f()\n")
        outer["f"] = inner
        done: Deferred[None] = Deferred()
        done.addCallback(outer["call"])
        clock.callLater(0, done.callback, None)
        run(partial(clock.advance, 0))
        self.assertEqual(
            self.places, [Place("shop.orders.call", "shop.orders.call (code.py:2)", "")]
        )

    def test_package(self) -> None:
        """Where the application has no part in it, the functions of this package are named."""
        inner = self.looking("twisted_net.net.redaction")
        outer = module("twisted_net.tcp.transport", "def call():\n f()\n", "/x/transport.py")
        reactor = module("twisted_net.quiet_reactor", "def call():\n f()\n")
        outer["f"], reactor["f"] = inner, outer["call"]
        run(reactor["call"])
        (place,) = self.places
        self.assertEqual(place.callback, "twisted_net.tcp.transport.call (transport.py:2)")
        self.assertEqual(place.where, "twisted_net.net.redaction.call (redaction.py:2)")

    def test_application_within_package(self) -> None:
        """A handler of the application is the callback, although this package has called it."""
        handler = self.looking("shop.orders")
        outer = module("twisted_net.tcp.transport", "def call():\n f()\n")
        outer["f"] = handler
        run(outer["call"])
        self.assertEqual(self.places[0].function, "shop.orders.call")

    def test_package_within_application(self) -> None:
        """What the application calls of this package is where it is."""
        outer = module("shop.orders", "def call():\n f()\n")
        outer["f"] = self.looking("twisted_net.sessions")
        run(outer["call"])
        (place,) = self.places
        self.assertEqual(place.function, "shop.orders.call")
        self.assertEqual(place.where, "twisted_net.sessions.call (sessions.py:2)")

    def test_machinery_alone(self) -> None:
        """Where there is nothing else, such as while a function of C runs, machinery is named."""
        run(self.looking("twisted.internet.base"))
        self.assertEqual(self.places[0].callback, "twisted.internet.base.call (base.py:2)")

    def test_loop(self) -> None:
        """Without a loop the whole stack counts; of two loops, the inner one."""
        outer = module("shop.main", "def call():\n run(f)\n")
        outer["f"], outer["run"] = self.looking("shop.orders"), run
        run(outer["call"])
        self.assertEqual(self.places[0].function, "shop.orders.call")
        self.loops = ()
        run(outer["call"])
        self.assertNotEqual(self.places[1].function, "shop.orders.call")

    def test_odd_names(self) -> None:
        """Names are bounded and printable, whatever somebody has made of them."""
        source = "def call():\n look()\n"
        file = "/srv/\x1b/" + "f\n" * 1000
        names: tuple[Any, ...] = ("a\x1b[2J\nb", "x" * 10_000, None, 7)  # Any: no names at all
        for name in names:
            found = module(name, source, file)
            found["look"] = self.look
            run(found["call"])
            place = self.places[-1]
            self.assertEqual(place.callback, printable(place.callback))
            self.assertLess(len(place.callback), MAX_FUNCTION + MAX_FILE + 20)
            self.assertTrue(place.function.endswith(".call"))

    def test_depth(self) -> None:
        """Of a deep stack the innermost frames are looked at."""
        call = self.looking("shop.orders", "def call(n=1500):\n call(n - 1) if n else look()\n")
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + 3 * MAX_FRAMES)
        self.addCleanup(sys.setrecursionlimit, limit)
        run(call)
        self.assertEqual(self.places[0].function, "shop.orders.call")
