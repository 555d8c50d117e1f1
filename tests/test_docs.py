"""What the documentation says agrees with the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.commands.lines import run_line
from twisted_net.auth.users import read_users
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import CommandError, FetchError, NotPermitted, TwistedNetError
from twisted_net.http import errors as http_errors
from twisted_net.reasons import End
from twisted_net.sessions import Session, Sessions
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.responder import DatagramResponder

ROOT = Path(__file__).resolve().parent.parent


async def _fetch(url: str) -> dict[str, object]:
    raise NotImplementedError(url)


async def _log_in(session: Session, who: str, password: str) -> str:
    raise NotImplementedError(who)


def family(error: type[TwistedNetError]) -> Iterator[type[TwistedNetError]]:
    """Go through an error and all that derive from it."""
    yield error
    for child in error.__subclasses__():
        if child.__module__ in ("twisted_net.errors", http_errors.__name__):
            yield from family(child)


class ProtocolPageTests(SynchronousTestCase):
    """``docs/protocol.rst`` names all that is on the wire."""

    def setUp(self) -> None:
        self.page = (ROOT / "docs" / "protocol.rst").read_text()

    def test_error_codes(self) -> None:
        """Each code that a client may see stands in a table."""
        for error in [*family(CommandError), *family(FetchError)]:
            self.assertTrue(f"\n`{error.code}` " in self.page, error.code)

    def test_commands(self) -> None:
        """Each command has its entry, with its arguments as HELP shows them."""
        for command in standard_commands(_fetch, _log_in):
            self.assertTrue(f"\n`{command.usage}`\n" in self.page, command.usage)

    def test_members(self) -> None:
        """Each member of the answers that tell figures is named."""
        commands = standard_commands(_fetch, _log_in)
        session = Sessions(lambda: 0.0).open("192.0.2.1", 5000, lambda line: None)
        for line in (b"STATS", b"CLIENTS", b"CLOSED", b"SLOWLOG", b"LATENCY", b"MONITOR", b"HELP"):
            answer = run_line(commands, line, session)
            assert isinstance(answer, bytes)
            for member in json.loads(answer).keys() - {"command"}:
                self.assertTrue(f"`{member}`" in self.page, f"{line.decode()}: {member}")

    def test_ends(self) -> None:
        """Each reason for which a connection ends is explained."""
        for end in End:
            self.assertTrue(f"\n`{end.value}` " in self.page, end.value)


class DatagramsTests(SynchronousTestCase):
    """``docs/protocol.rst`` explains what datagrams are counted as."""

    def test_figures(self) -> None:
        """Each figure of ``STATS`` over UDP has its row."""
        page = (ROOT / "docs" / "protocol.rst").read_text()
        for name in DatagramResponder(DatagramLimits()).statistics():
            self.assertIn(f"\n`{name}` ", page)


class SecuringPageTests(SynchronousTestCase):
    """The users file of the pages about users is one."""

    def test_users(self) -> None:
        """It is read without a mistake, and its permissions are as the pages say."""
        text = (ROOT / "docs" / "howto" / "users.toml").read_text()
        users = read_users(text, "users.toml")
        sensor, ann = users.permissions("sensor-7"), users.permissions("ann")
        assert sensor is not None
        assert ann is not None
        sensor.check_publish("sensors.7.heat")
        self.assertRaises(NotPermitted, sensor.check_publish, "sensors.8.heat")
        self.assertRaises(NotPermitted, users.unlisted("eve").check_subscribe, ">")
        ann.check_command("CLIENTS", admin=True)


class HttpPageTests(SynchronousTestCase):
    """``docs/howto/http.rst`` has what users of other clients look for."""

    def test_errors(self) -> None:
        """Each error of a call is named where errors are."""
        page = (ROOT / "docs" / "howto" / "http.rst").read_text()
        section = page.split("\nErrors\n---", 1)[1].split("\nJSON into a type\n---", 1)[0]
        for error in family(FetchError):
            self.assertIn(f"`{error.__name__}`", section)

    def test_words(self) -> None:
        """Words of requests, httpx and treq are there."""
        page = (ROOT / "docs" / "howto" / "http.rst").read_text()
        for word in (
            *("verify", "cert", "proxies", "trust_env", ".netrc", "http2=True", "status_code"),
            *("response.text", "response.content", "iter_content", "aiter_bytes", "Retry"),
            *("ConnectTimeout", "SSLError", "JSONDecodeError", "HTTPError", "getRawHeaders"),
        ):
            self.assertIn(word, page)


class ReadmeTests(SynchronousTestCase):
    """The commands of ``README.rst`` are those that are run for every change."""

    def test_test_command(self) -> None:
        """``.ci/run`` runs the README's test command, letter by letter."""
        readme = (ROOT / "README.rst").read_text()
        section = readme.split("\nTest it\n")[1]
        command = section.split("::\n\n", 1)[1].split("\n", 1)[0].strip()
        self.assertTrue("pytest" in command)
        self.assertTrue(f"\n{command}\n" in (ROOT / ".ci" / "run").read_text())


class ArchitecturePageTests(SynchronousTestCase):
    """``docs/architecture.rst`` describes the package as it is."""

    def test_modules(self) -> None:
        """Each module that it names is there."""
        page = (ROOT / "docs" / "architecture.rst").read_text()
        named = set(re.findall(r"`((?:\w+/)+\w+\.py|\w+\.py)`", page))
        self.assertIn("commands/runner.py", named)
        missing = {name for name in named if not (ROOT / "twisted_net" / name).is_file()}
        self.assertEqual(missing, set())

    def test_folders(self) -> None:
        """Each folder stands in its drawing."""
        page = (ROOT / "docs" / "architecture.rst").read_text()
        for path in (ROOT / "twisted_net").iterdir():
            if path.is_dir() and (path / "__init__.py").is_file():
                self.assertRegex(page, rf"\b{path.name}\b")


class NewsTests(SynchronousTestCase):
    """``docs/news/`` has what towncrier can put together."""

    def setUp(self) -> None:
        paths = sorted((ROOT / "docs" / "news").iterdir())
        self.fragments = [path for path in paths if path.name != "README.rst"]

    def test_names(self) -> None:
        """Each fragment is ``<topic>.<type>.rst``, of a type that README.rst has."""
        for path in self.fragments:
            self.assertRegex(path.name, r"\A[a-z0-9-]+\.(feature|fix|change|removal|doc)\.rst\Z")

    def test_literals(self) -> None:
        """Code is between two backticks each; one would be a role in CHANGELOG.rst."""
        for path in self.fragments:
            rest = re.sub(r"``.+?``", "", path.read_text(), flags=re.DOTALL)
            self.assertNotIn("`", rest, path.name)
