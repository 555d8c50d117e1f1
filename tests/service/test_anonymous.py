"""Plain CoAP beside logins: devices without one may do what the anonymous may."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import OBSERVE, Driver
from tests.service.test_net import connect
from twisted_net.auth.users import AuthSettings
from twisted_net.coap.codec import Code
from twisted_net.commands.registry import Commands
from twisted_net.service.config import CoapSettings, Config, UdpSettings
from twisted_net.service.net import NetService


class AnonymousTests(SynchronousTestCase):
    """A service with users, and devices on plain CoAP."""

    def setUp(self) -> None:
        self.start()

    def start(self, **auth: Any) -> None:
        """Make a service with users, and with these settings of logins."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        users = Path(holder.name, "users.toml")
        users.write_text(
            '[ann]\ntokens = ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]\n'
        )
        users.chmod(0o600)
        self.reactor: Any = MemoryReactorClock()  # Any: it has no threads
        commands = Commands()
        commands.command("READING")(lambda: "ok")
        self.service = NetService(
            self.reactor,
            Config(
                udp=UdpSettings(enabled=False),
                coap=CoapSettings(enabled=True),
                auth=AuthSettings(users=str(users), **auth),
            ),
            commands,
        )
        assert self.service.coap is not None
        self.driver = Driver(Commands())
        self.driver.server = self.service.coap.server
        self.driver.clock = self.reactor
        self.driver.server.transport = self.driver.transport  # type: ignore[assignment]  # a fake

    def code(self, *arguments: Any, **more: Any) -> int:  # Any: of Driver.ask
        """Return the code of the answer to a request."""
        return self.driver.ask(*arguments, **more).code

    def test_by_default(self) -> None:
        """A device may do nothing but PING: no command, no topic, no event."""
        self.assertEqual(self.driver.ask(Code.POST, "ping").payload, b"PONG")
        for method, path in (
            (Code.POST, "reading"),
            (Code.POST, "topics/a"),
            (Code.GET, "topics/a"),
            (Code.GET, "events"),
            (Code.POST, "broadcast"),
            (Code.GET, "stats"),
            (Code.GET, "nope"),
        ):
            self.assertEqual(self.code(method, path, b"x" * 2), Code.UNAUTHORIZED, path)
        listed = self.driver.ask(Code.GET, ".well-known/core").payload
        self.assertIn(b"</ping>", listed)
        self.assertNotIn(b"</reading>", listed)

    def test_permitted(self) -> None:
        """What the settings permit without a login, devices may do, and lines alike."""
        self.start(
            anonymous=("PING", "READING", "PUBLISH", "SUBSCRIBE"),
            anonymous_publish=("reading.*",),
            anonymous_subscribe=("config.*",),
        )
        self.assertEqual(self.code(Code.POST, "reading"), Code.CHANGED)
        self.assertEqual(self.code(Code.POST, "topics/reading.7", b"21"), Code.CHANGED)
        self.assertEqual(self.code(Code.POST, "topics/config.7", b"21"), Code.UNAUTHORIZED)
        observed = self.driver.ask(Code.GET, "topics/config.7", options=[OBSERVE])
        self.assertEqual(observed.code, Code.CONTENT)
        self.assertEqual(self.code(Code.GET, "topics/reading.7"), Code.UNAUTHORIZED)
        self.assertEqual(self.code(Code.POST, "broadcast", b"x"), Code.UNAUTHORIZED)
        transport = connect(self.service)
        for line in (b"READING", b"PUBLISH reading.7 x", b"PUBLISH config.7 x", b"SUBSCRIBE >"):
            transport.protocol.dataReceived(line + b"\n")
        answers = [json.loads(line) for line in transport.value().splitlines()]
        self.assertEqual(
            [answer.get("code", "done") for answer in answers],
            ["done", "done", "auth_required", "auth_required"],
        )
