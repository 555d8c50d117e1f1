"""What is installed: the plugin, the packages, and what an import brings along."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from configparser import ConfigParser
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

import twisted_net

ROOT = Path(__file__).resolve().parents[1]


SERVE = """
from twisted.internet.testing import MemoryReactorClock
from twisted_net.service.config import Config, UdpSettings
from twisted_net.service.process import ProcessService
from twisted_net.service.net import NetService
# Any port: the socket of datagrams is a real one.
NetService(MemoryReactorClock(), Config(udp=UdpSettings(port=0))).startService()
"""


def setup_cfg() -> ConfigParser:
    """Read setup.cfg."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def imported(module: str, then: str = "") -> set[str]:
    """Give all modules that a fresh interpreter has after importing *module*, and some lines."""
    code = f"import sys, {module}\n{then}\nprint(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(answer.stdout.split())


class MetadataTests(SynchronousTestCase):
    """setup.cfg says what is there."""

    def test_version(self) -> None:
        """The version of the package is that of its metadata."""
        self.assertEqual(setup_cfg()["metadata"]["version"], twisted_net.__version__)

    def test_packages(self) -> None:
        """Every package on the disk is listed, and the folder of the plugin."""
        on_disk = {
            ".".join(path.parent.relative_to(ROOT).parts)
            for path in (ROOT / "twisted_net").rglob("__init__.py")
        }
        listed = setup_cfg()["options"]["packages"].split()
        self.assertEqual(sorted(listed), sorted([*on_disk, "twisted.plugins"]))

    def test_typed(self) -> None:
        """Type checkers are told that the package has types."""
        self.assertTrue((ROOT / "twisted_net" / "py.typed").exists())
        self.assertIn("py.typed", setup_cfg()["options.package_data"]["twisted_net"])

    def test_script(self) -> None:
        """The console script is ours."""
        (script,) = entry_points(group="console_scripts", name="twisted-net")
        self.assertEqual(script.value, "twisted_net.__main__:main")


class PluginTests(SynchronousTestCase):
    """``net`` is one of Twisted's services."""

    def test_listed(self) -> None:
        """twistd and twist find the plugin, once."""
        plugins: Iterable[Any] = getPlugins(IServiceMaker)  # Any: the interface lacks a member
        makers = [maker for maker in plugins if maker.tapname == "net"]
        self.assertEqual([maker.module for maker in makers], ["twisted_net.tap"])
        self.assertIn("TCP", makers[0].description)

    def test_shadows_nothing(self) -> None:
        """Our folder ``twisted`` has no ``__init__.py``, which would hide Twisted itself."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])
        names = [path.name for path in (ROOT / "twisted" / "plugins").glob("*.py")]
        self.assertIn("twisted_net_plugin.py", names)
        self.assertEqual([name for name in names if not name.startswith("twisted_net_")], [])


class ImportTests(SynchronousTestCase):
    """An import brings along what it needs, and no more."""

    def test_core(self) -> None:
        """The core is imported without Twisted."""
        core = (
            "twisted_net.service.config, twisted_net.service.commands, twisted_net.tcp.line_framer"
        )
        names = imported(core)
        self.assertIn("twisted_net.udp.limits", names)
        self.assertEqual(names & {"twisted", "treq", "zope.interface", "asyncio"}, set())

    def test_wings(self) -> None:
        """Neither server brings the HTTP client or treq along."""
        for module in ("twisted_net.udp.server", "twisted_net.tcp.server"):
            with self.subTest(module=module):
                names = imported(module)
                self.assertEqual(names & {"treq", "twisted_net.http", "twisted.web"}, set())

    def test_reactor(self) -> None:
        """No module of ours installs a reactor by being imported."""
        names = imported(
            "twisted_net.service.process, twisted_net.http.fetch, twisted_net.cli.serve"
        )
        self.assertIn("treq", names)
        self.assertNotIn("twisted.internet.reactor", names)

    def test_checking(self) -> None:
        """Checking a configuration needs neither treq nor a reactor."""
        names = imported("twisted_net.cli.serve")
        self.assertIn("twisted_net.service.config", names)
        self.assertEqual(names & {"treq", "twisted.internet.reactor", "twisted.web"}, set())

    def test_serving(self) -> None:
        """A service is made and started without what only TLS, CoAP and the like need."""
        names = imported("twisted_net.tap", SERVE)
        self.assertIn("twisted_net.tcp.server", names)
        # Not sqlite3, which a measurement of coverage imports by itself.
        ours = {
            "http.cache.sqlite_store",
            "coap.server",
            "dtls.server",
            "discovery.service",
            "tcp.tls",
        }
        self.assertEqual(names & {f"twisted_net.{name}" for name in ours}, set())
        # FETCH: later there may be no descriptor to import it by.
        self.assertIn("twisted_net.http.client", names)
