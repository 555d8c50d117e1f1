"""The configurations that the documentation shows can be loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.rst_blocks import blocks
from twisted_net.config.loader import settings
from twisted_net.config.tls import TlsSettings
from twisted_net.dtls.psk import load_keys
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.service.config import load_config
from twisted_net.tcp.listener_settings import Listener
from twisted_net.udp.socket_spec import parse_socket_spec

DOCS = Path(__file__).resolve().parents[1] / "docs"


def toml_in(page: Path) -> Iterator[str]:
    """Give the TOML of a page, block by block."""
    return (block.text for block in blocks(page) if block.language == "toml")


class ListenerPagesTests(SynchronousTestCase):
    """What the pages about listeners say."""

    def test_configurations(self) -> None:
        """Every configuration shown is one, and has the listeners that it shows."""
        seen = 0
        for name in ("tls", "haproxy", "administering"):
            for text in toml_in(DOCS / "howto" / f"{name}.rst"):
                config = load_config((f"{name}.rst", text), {}, {}).record
                self.assertEqual(len(config.listeners), text.count("[[listeners]]"))
                seen += len(config.listeners)
        self.assertEqual(seen, 6)

    def test_dtls(self) -> None:
        """The page about DTLS shows a configuration with it, and each limit with its default."""
        page = DOCS / "howto" / "dtls.rst"
        whole, with_keys = (
            load_config(("dtls.rst", text), {}, {}).record for text in toml_in(page)
        )
        self.assertTrue(whole.coap.dtls.enabled and whole.udp.dtls.enabled)
        keys = load_keys(str(page.with_name(with_keys.coap.dtls.psk)))
        self.assertEqual(sorted(keys), ["device-7", "device-8"])
        table = page.read_text().split("\nLimits\n---", 1)[1].split("\nForged addresses\n---", 1)[0]
        inherited = {setting.key for setting in settings(TlsSettings())}
        for setting in settings(DtlsSettings()):
            # A file is no limit.
            if setting.key not in inherited and not isinstance(setting.default, str):
                default = str(setting.default).removesuffix(".0")
                self.assertIn(f"`{setting.key}` ({default}", table)

    def test_settings_of_a_listener(self) -> None:
        """The table of a listener's settings has each of them."""
        page = (DOCS / "configuration.rst").read_text()
        table = page.split("\nListeners\n---", 1)[1].split("\nDatagram sockets\n---", 1)[0]
        for setting in settings(Listener()):
            self.assertIn(f"`{setting.key}`", table)


class DiscoveryPageTests(SynchronousTestCase):
    """What the page about discovery says."""

    def test_configurations(self) -> None:
        """Every configuration shown is one."""
        texts = list(toml_in(DOCS / "howto" / "discovery.rst"))
        configs = [load_config(("discovery.rst", text), {}, {}).record for text in texts]
        self.assertEqual([config.discovery.enabled for config in configs], [True, False])
        self.assertEqual(configs[1].coap.multicast.groups, ("224.0.1.187",))


class DatagramPagesTests(SynchronousTestCase):
    """What the pages about datagrams say."""

    def test_configurations(self) -> None:
        """Every configuration shown is one, and serves the sockets that it shows alone."""
        seen = 0
        for text in toml_in(DOCS / "howto" / "datagrams.rst"):
            config = load_config(("datagrams.rst", text), {}, {}).record
            self.assertEqual(len(config.udp.socket_specs), len(config.udp.sockets))
            seen += len(config.udp.socket_specs)
        self.assertEqual(seen, 3)

    def test_sockets(self) -> None:
        """Every description of a socket in the table is one."""
        page = (DOCS / "configuration.rst").read_text()
        table = page.split("\nDatagram sockets\n---", 1)[1].split("\nOwn commands\n---", 1)[0]
        shown = re.findall(r"`((?:udp|fd|systemd):[^`]+)`", table)
        self.assertEqual(len(shown), 8)
        for text in shown:
            parse_socket_spec(f"{text}:rcvbuf=4M:sndbuf=512K")
