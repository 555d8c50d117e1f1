"""Applications start when the ports are bound, and stop when the clients have gone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, cast

from msgspec import Meta
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.service.test_net import connect
from twisted_net.auth.users import AuthSettings
from twisted_net.commands.registry import Request
from twisted_net.config import Record
from twisted_net.errors import ApplicationFailed, ConfigError
from twisted_net.http import Client
from twisted_net.reasons import End
from twisted_net.service.application import Application
from twisted_net.service.application_runner import ApplicationContext
from twisted_net.service.config import CoapSettings, Config, UdpSettings
from twisted_net.service.net import NetService
from twisted_net.sessions import Session


class ShopSettings(Record, frozen=True):
    """Settings of an application in these tests."""

    size: Annotated[int, Meta(ge=1, description="shelves")] = 3
    key: str = ""


class Port:
    """A port in memory that can be held."""

    def __init__(self, port: Any) -> None:  # Any: a port of MemoryReactorClock
        self._port = port
        self.reads = True

    def stopReading(self) -> None:
        """Accept nothing."""
        self.reads = False

    def startReading(self) -> None:
        """Accept."""
        self.reads = True

    def __getattr__(self, name: str) -> Any:  # Any: of the port
        return getattr(self._port, name)


class HoldingReactor(MemoryReactorClock):
    """A reactor whose ports can be held."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ports: list[Port] = []

    def listenTCP(self, *arguments: Any, **options: Any) -> Any:  # Any: as of the reactor
        """Listen."""
        listening: Any = super().listenTCP  # Any: it has no types
        self.ports.append(Port(listening(*arguments, **options)))
        return self.ports[-1]


class ApplicationCase(SynchronousTestCase):
    """A service with one application."""

    def setUp(self) -> None:
        self.reactor: Any = HoldingReactor()  # Any: it has no threads
        self.app = Application("shop", ShopSettings)
        self.log: list[object] = []

    def service(self, *more: Application, **settings: Any) -> NetService:
        """Make a service without UDP, whose port is always a real socket."""
        config = Config(
            udp=UdpSettings(enabled=False), **{"auth": AuthSettings(open=True), **settings}
        )
        return NetService(self.reactor, config, applications=[self.app, *more])

    def started(self, *more: Application, **settings: Any) -> NetService:
        """Start a service."""
        service = self.service(*more, **settings)
        service.privilegedStartService()
        service.startService()
        return service

    def stop(self, service: NetService) -> None:
        """Stop it, and see that nothing is left."""
        stopped = service.stopService()
        for _ in range(5):
            self.reactor.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def waiting(self, register: Callable[..., object]) -> Deferred[None]:
        """Let a function of the application wait for what is returned."""
        until: Deferred[None] = Deferred()

        async def wait(*arguments: object) -> None:
            self.log.append("begun")
            await until
            self.log.append("ended")

        if register == self.app.stop:
            register(lambda: wait())
        else:
            register(wait)
        return until


class StartTests(ApplicationCase):
    """``start``."""

    def test_context(self) -> None:
        """It gets its settings, and what the service has."""
        found: list[ApplicationContext] = []
        self.app.start(found.append)
        service = self.started(app={"shop": {"size": 7}}, coap=CoapSettings(enabled=False))
        (context,) = found
        self.assertEqual(context.settings, ShopSettings(size=7))
        self.assertIs(context.sessions, service.sessions)
        self.assertIs(context.topics, service.sessions.topics)
        self.assertEqual(context.commands.get("PING").name, "PING")  # type: ignore[union-attr]
        self.assertEqual((list(context.coap), context.config.tcp.port), ([], 8888))
        self.assertIsInstance(context.http, Client)
        self.assertIs(context.http, context.http)
        self.stop(service)

    def test_bound_before(self) -> None:
        """Ports are bound when it is called; several start in their order."""
        other = Application("other")
        self.app.start(lambda context: self.log.append(len(self.reactor.ports)))
        other.start(lambda context: self.log.append("other"))
        service = self.started(other)
        self.assertEqual((self.log, self.reactor.ports[0].reads), ([1, "other"], True))
        self.successResultOf(service.when_started())
        self.stop(service)

    def test_holds(self) -> None:
        """While a start waits no port accepts."""
        until = self.waiting(self.app.start)
        service = self.started()
        ready = service.when_started()
        self.assertNoResult(ready)
        self.assertFalse(self.reactor.ports[0].reads)
        until.callback(None)
        self.successResultOf(ready)
        self.assertTrue(self.reactor.ports[0].reads)
        self.stop(service)

    def test_fails_at_once(self) -> None:
        """A start that fails ends the start of the service, with its message."""
        stopped: list[str] = []

        @self.app.start
        def start(context: ApplicationContext) -> None:
            raise ValueError("no shelves")

        self.app.stop(lambda: stopped.append("stopped"))
        service = self.service()
        service.privilegedStartService()
        error = self.assertRaises(ApplicationFailed, service.startService)
        self.assertRegex(str(error), "application shop cannot start: ValueError: no shelves")
        self.reactor.advance(1)
        self.assertEqual(stopped, ["stopped"])
        self.assertIsNone(service.tcp and service.tcp.port)

    def test_exits(self) -> None:
        """One that ends the process is described, and not obeyed."""

        @self.app.start
        def start(context: ApplicationContext) -> None:
            raise SystemExit

        error = self.assertRaises(ApplicationFailed, self.started)
        self.assertIn("ends the process", str(error))
        self.reactor.advance(1)

    def test_fails_later(self) -> None:
        """One that fails later stops the service, which has accepted nothing."""
        until = self.waiting(self.app.start)
        service = self.started()
        ready = service.when_started()
        until.errback(ValueError("no shelves"))
        self.failureResultOf(ready, ApplicationFailed)
        self.reactor.advance(1)
        self.assertFalse(self.reactor.ports[0].reads)
        self.assertIsNone(service.tcp and service.tcp.port)
        self.failureResultOf(service.when_started(), ApplicationFailed)

    def test_stopped_meanwhile(self) -> None:
        """A start that waits is cancelled when the service stops."""
        self.waiting(self.app.start)
        self.app.stop(lambda: self.log.append("stopped"))
        service = self.started()
        ready = service.when_started()
        self.stop(service)
        self.failureResultOf(ready, CancelledError)
        self.assertEqual(self.log, ["begun", "stopped"])

    def test_again(self) -> None:
        """A service that was stopped starts its applications again."""
        self.app.start(lambda context: self.log.append("start"))
        self.app.stop(lambda: self.log.append("stop"))
        service = self.started()
        self.stop(service)
        service.startService()
        self.stop(service)
        self.assertEqual(self.log, ["start", "stop"] * 2)


class StopTests(ApplicationCase):
    """``stop``."""

    def test_after_the_clients(self) -> None:
        """It is called when the last client has gone; the last application stops first."""
        other = Application("other")
        self.app.stop(lambda: self.log.append("shop"))
        other.stop(lambda: self.log.append("other"))
        self.app.hooks.on_close(lambda session, end: self.log.append(end))
        service = self.started(other)
        connect(service)
        self.stop(service)
        self.assertEqual(self.log, [End.DRAINED, "other", "shop"])

    def test_waits(self) -> None:
        """The service waits for it, no longer than a drain may take."""
        self.waiting(self.app.stop)
        service = self.started(drain_timeout=5.0)
        stopped = service.stopService()
        self.reactor.advance(4)
        self.assertNoResult(stopped)
        self.reactor.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(self.log, ["begun"])

    def test_bug(self) -> None:
        """A bug in it is logged, and the service stops."""
        self.app.stop(lambda: 1 // 0)
        self.stop(self.started())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class TimerTests(ApplicationCase):
    """``context.every``."""

    def every(self, function: Callable[[], object]) -> NetService:
        """Start a service whose application calls this every two seconds."""
        self.app.start(lambda context: context.every(2.0, function))
        return self.started()

    def test_interval(self) -> None:
        """It is called after each interval, until the service stops."""
        service = self.every(lambda: self.log.append(self.reactor.seconds()))
        began = self.reactor.seconds()
        for _ in range(5):
            self.reactor.advance(1)
        self.stop(service)
        self.reactor.advance(10)
        self.assertEqual([at - began for at in cast("list[float]", self.log)], [2.0, 4.0])

    def test_bug(self) -> None:
        """A bug is logged, and it is called again."""

        def bug() -> None:
            self.log.append("called")
            raise ZeroDivisionError

        service = self.every(bug)
        self.reactor.advance(2)
        self.reactor.advance(2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.stop(service)
        self.assertEqual(self.log, ["called"] * 2)

    def test_overlap(self) -> None:
        """While it runs it is not called again; it is cancelled when the service stops."""
        waits: list[Deferred[None]] = []

        def wait() -> Awaitable[None]:
            waits.append(Deferred(lambda _: self.log.append("cancelled")))
            return waits[-1]

        service = self.every(wait)
        self.reactor.advance(2)
        self.reactor.advance(2)
        self.assertEqual(len(waits), 1)
        waits[0].callback(None)
        self.reactor.advance(2)
        self.assertEqual(len(waits), 2)
        self.stop(service)
        self.assertEqual(self.log, ["cancelled"])

    def test_wrong(self) -> None:
        """An interval that is none ends the start, as does a function that takes something."""
        for wrong in (
            lambda context: context.every(0, self.log.append),
            lambda context: context.every(float("nan"), lambda: None),
            lambda context: context.every(1.0, lambda what: None),
        ):
            self.app.starts = [wrong]
            self.assertRaises(ApplicationFailed, self.started)
            self.reactor.advance(1)


class SettingsTests(ApplicationCase):
    """``[app.NAME]``."""

    def mistakes(self, **settings: Any) -> list[str]:  # Any: of Config
        """Return the mistakes of a configuration."""
        error = self.assertRaises(ConfigError, self.service, **settings)
        assert isinstance(error, ConfigError)
        return error.mistakes

    def test_checked(self) -> None:
        """They are checked as those of the service are, all at once."""
        found = self.mistakes(app={"shop": {"size": 0, "colour": 1}, "shap": {}})
        self.assertEqual(len(found), 3)
        self.assertIn("app.shap: commands names no application shap; did you mean app.shop?", found)
        self.assertTrue(
            any("app.shop.size is 0, must be an integer of at least 1" in m for m in found)
        )
        self.assertTrue(any("app.shop.colour" in m for m in found))

    def test_none(self) -> None:
        """An application without settings takes none."""
        self.app = Application("shop")
        self.assertEqual(
            self.mistakes(app={"shop": {"size": 1}}),
            ["app.shop: this application has no settings"],
        )

    def test_twice(self) -> None:
        """Two of one name are refused, as their settings could not be told apart."""
        error = self.assertRaises(ConfigError, self.service, Application("shop"))
        self.assertIn("there are 2 applications of the name shop", str(error))

    def test_names(self) -> None:
        """A name is one in TOML and in the log."""
        for name in ("", "Shop", "a-b", "1a", "a.b"):
            self.assertRaises(ValueError, Application, name)


class ServedTests(ApplicationCase):
    """Its commands and hooks are those of the service."""

    def test_commands_and_hooks(self) -> None:
        """A command is served, and a hook called for who comes."""

        @self.app.commands.command()
        def who(request: Request) -> object:
            """Say who asks."""
            return request.session.data["greeted"]

        @self.app.hooks.on_open
        def greet(session: Session) -> None:
            session.data["greeted"] = True

        service = self.started()
        transport = connect(service)
        transport.protocol.dataReceived(b"WHO\n")
        self.reactor.advance(0)
        self.assertEqual(json.loads(transport.value()), {"command": "WHO", "result": True})
        self.stop(service)

    def test_name_taken(self) -> None:
        """A command that there is already is a mistake of the configuration."""
        self.app.commands.command("PING")(lambda: None)
        error = self.assertRaises(ConfigError, self.service)
        self.assertIn("application shop: there is a command PING already", str(error))
