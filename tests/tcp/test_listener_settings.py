"""The settings of a listener are checked where they are made."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.tls import TlsSettings
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener_settings import Listener


class Refusals(SynchronousTestCase):
    """Returns why a record is refused."""

    def refused(self, record: type, **settings: Any) -> str:  # Any: wrong ones too
        """Return the reason."""
        return str(self.assertRaises(ValueError, record, **settings))


class ListenerTests(Refusals):
    """:class:`Listener`."""

    def test_one_place(self) -> None:
        """It listens at one place, or has none yet."""
        self.assertFalse(Listener().placed)
        for place in ({"port": 0}, {"path": "/run/x"}, {"endpoint": "tcp:1"}):
            settings: dict[str, Any] = place  # Any: of different types
            self.assertTrue(Listener(**settings).placed)
        self.assertIn("only one", self.refused(Listener, port=1, path="/run/x"))
        self.assertIn("only one", self.refused(Listener, endpoint="tcp:1", path="/run/x"))

    def test_length_of_a_path(self) -> None:
        """A path has as many bytes as the address of a Unix socket can have."""
        self.assertTrue(Listener(path="/" + "é" * 53).placed)
        for path in ("/" + "é" * 53 + "x", "/" + "x" * 107):
            self.assertIn("path must have at most 107 bytes", self.refused(Listener, path=path))

    def test_modes(self) -> None:
        """A mode is three octal digits."""
        for mode in ("600", "0660", "777"):
            self.assertEqual(Listener(path="/x", mode=mode).mode, mode)
        for mode in ("66", "680", "4755", "rw-", ""):
            self.assertIn("Listener.mode", self.refused(Listener, mode=mode))

    def test_no_effect(self) -> None:
        """What has no effect in a combination is refused."""
        for settings, said in (
            ({"mode": "600", "port": 1}, "mode is set without path"),
            ({"mode": "600", "endpoint": "tcp:1"}, "mode is set without path"),
            ({"interface": "::1", "path": "/x"}, "interface is set without port"),
            ({"interface": "", "endpoint": "tcp:1"}, "interface is set without port"),
            ({"backlog": 5, "endpoint": "tcp:1"}, "backlog is set with endpoint"),
            ({"origins": ("*",), "port": 1}, "origins are set"),
            ({"admin": True, "port": 1}, "admin is true without path"),
        ):
            self.assertIn(said, self.refused(Listener, **settings))
        self.assertIn(
            "client_certificate is set without client_ca",
            self.refused(TlsSettings, certificate="/x", client_certificate="optional"),
        )

    def test_permissions(self) -> None:
        """The file of a socket is its owner's and group's, one for administration its owner's."""
        for settings, permissions in (
            ({}, 0o660),
            ({"admin": True}, 0o600),
            ({"admin": True, "mode": "660"}, 0o660),
            ({"mode": "0777"}, 0o777),
        ):
            self.assertEqual(Listener(path="/x", **settings).permissions, permissions)

    def test_administration(self) -> None:
        """Only a Unix socket can be for administration."""
        for place in ({}, {"port": 1}, {"endpoint": "tcp:1"}):
            self.assertIn("admin is true without path", self.refused(Listener, admin=True, **place))

    def test_interface(self) -> None:
        """An interface is a numeric address."""
        self.assertEqual(Listener(port=1, interface="::").interface, "::")
        self.assertIn("127.0.0.1 or ::1", self.refused(Listener, port=1, interface="localhost"))

    def test_proxies(self) -> None:
        """Proxies are addresses, networks, or those of a Unix socket."""
        self.assertEqual(len(Listener(port=1, proxy=("10.0.0.0/8", "unix")).proxy), 2)
        self.assertIn("proxy: 'lb'", self.refused(Listener, port=1, proxy=("lb",)))

    def test_origins(self) -> None:
        """Origins are of WebSockets alone."""
        Listener(port=1, protocol="websocket", origins=("https://a.test",))
        self.assertIn("origins", self.refused(Listener, port=1, origins=("https://a.test",)))

    def test_limits(self) -> None:
        """Its own limits go before those of its server."""
        listener = Listener(port=1, limits={"max_line": 100})
        limits = listener.limits_over(Limits(max_line=200, max_pending=5))
        self.assertEqual((limits.max_line, limits.max_pending), (100, 5))

    def test_wrong_limits(self) -> None:
        """Limits that there are not, and those out of their bounds, are refused by name."""
        self.assertEqual(
            self.refused(Listener, limits={"max_lin": 5}), "limits: there is no limit max_lin"
        )
        for value in (1, "x", None):
            self.assertIn(
                "limits.max_line must be an integer from 64",
                self.refused(Listener, limits={"max_line": value}),
            )
