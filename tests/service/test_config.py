"""The configuration: its defaults, its layers, and the descriptions of all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.auth.users import AuthSettings
from twisted_net.config.loader import settings, to_toml
from twisted_net.errors import ConfigError
from twisted_net.http.settings import FetchSettings, HttpSettings
from twisted_net.service.config import (
    PREFIX,
    CoapDtlsSettings,
    CoapSettings,
    Config,
    TcpSettings,
    UdpGroupSettings,
    UdpSettings,
    load_config,
)
from twisted_net.tcp.limits import Limits
from twisted_net.tcp.listener_settings import Listener
from twisted_net.udp.limits import DatagramLimits, GroupSettings


class ConfigTests(SynchronousTestCase):
    """:class:`Config` nests the settings records of the parts."""

    def test_addresses(self) -> None:
        """By default both servers listen on loopback, on the ports of the original system."""
        config = Config()
        self.assertEqual((config.tcp.interface, config.tcp.port), ("127.0.0.1", 8888))
        self.assertEqual((config.udp.interface, config.udp.port), ("127.0.0.1", 9999))

    def test_sections(self) -> None:
        """A section can be passed to the part that it configures, and has its defaults."""
        config = Config()
        for section, record in [
            (config.tcp, Limits()),
            (config.udp, DatagramLimits()),
            (config.http, HttpSettings()),
            (config.fetch, FetchSettings()),
        ]:
            with self.subTest(section=type(section).__name__):
                self.assertIsInstance(section, type(record))
                for setting in settings(record):
                    value: object = section
                    for name in setting.path:
                        value = getattr(value, name)
                    self.assertEqual(value, setting.default)

    def test_nothing_to_serve(self) -> None:
        """A configuration that serves nothing is invalid; each server can be disabled."""
        Config(tcp=TcpSettings(enabled=False))
        Config(udp=UdpSettings(enabled=False))
        error = self.assertRaises(
            ValueError, Config, tcp=TcpSettings(enabled=False), udp=UdpSettings(enabled=False)
        )
        self.assertIn("nothing is served", str(error))

    def test_numeric_interfaces(self) -> None:
        """An interface is an IPv4 or IPv6 address, or empty for all."""
        for interface in ("", "0.0.0.0", "::", "::1", "fe80::1%eth0"):
            with self.subTest(interface=interface):
                self.assertEqual(TcpSettings(interface=interface).interface, interface)
        for settings_type in (TcpSettings, UdpSettings):
            with self.subTest(settings_type=settings_type.__name__):
                error = self.assertRaises(ValueError, settings_type, interface="localhost")
                self.assertIn("127.0.0.1 or ::1", str(error))

    def test_udp_sockets(self) -> None:
        """Sockets are added to that of the port, or are the only ones without a port."""
        sockets = ("udp:1:interface=", "systemd:0")
        settings = UdpSettings(sockets=sockets)
        self.assertEqual(
            [str(spec) for spec in settings.socket_specs],
            ["127.0.0.1:9999", "0.0.0.0:1", "systemd:0"],
        )
        settings = UdpSettings(sockets=sockets, port=None)
        self.assertEqual([str(spec) for spec in settings.socket_specs], ["0.0.0.0:1", "systemd:0"])
        UdpSettings(port=None, enabled=False)
        error = self.assertRaises(ValueError, UdpSettings, port=None)
        self.assertIn("port is none and sockets is empty", str(error))
        error = self.assertRaises(ValueError, UdpSettings, interface="fe80::1")
        self.assertIn("fe80::1%eth0", str(error))

    def test_every_setting_is_explained(self) -> None:
        """Every setting has a description of one line, and a unique name in each layer."""
        all_settings = list(settings(Config()))
        for setting in all_settings:
            with self.subTest(setting=setting.key):
                self.assertTrue(setting.description)
                self.assertTrue(setting.description.isprintable())
        names = {setting.variable(PREFIX) for setting in all_settings}
        self.assertEqual(len(names), len(all_settings))
        self.assertEqual(len({setting.option for setting in all_settings}), len(all_settings))

    def test_every_default_can_be_given(self) -> None:
        """Printing the defaults and reading them back gives the defaults."""
        text = to_toml(Config())
        self.assertEqual(load_config(("net.toml", text), {}, {}).record, Config())

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "drain-timeout": st.floats(0, 86_400),
                "threads": st.integers(1, 1000),
                "tcp-port": st.integers(0, 65_535),
                "tcp-fallback": st.sampled_from(["none", "acknowledge"]),
                "http-user-agent": st.text("abc \"'\\{}#", min_size=1),
                "http-cache-default-ttl": st.integers(0, 1000) | st.just("none"),
                "http-headers-timeout": st.integers(1, 1000) | st.just("none"),
                "fetch-public": st.sampled_from(["true", "false"]),
            },
        )
    )
    def test_round_trip(self, options: dict[str, object]) -> None:
        """The output of print-config can be loaded, and is the same configuration."""
        loaded = load_config(None, {}, {name: str(value) for name, value in options.items()})
        printed = to_toml(loaded.record, loaded.origins)
        self.assertEqual(load_config(("net.toml", printed), {}, {}).record, loaded.record)


class ListenersTests(SynchronousTestCase):
    """The further listeners of a :class:`Config`."""

    def test_forms(self) -> None:
        """A listener is a description, or a table; both become records."""
        loaded = load_config(
            ("net.toml", 'listeners = ["unix:1", {port = 2, limits = {max_line = 100}}]'), {}, {}
        )
        self.assertEqual(
            loaded.record.further_listeners,
            (Listener(endpoint="unix:1"), Listener(port=2, limits={"max_line": 100})),
        )

    def test_alone(self) -> None:
        """Listeners alone are something to serve."""
        off = TcpSettings(enabled=False)
        config = Config(tcp=off, udp=UdpSettings(enabled=False), listeners=("unix:1",))
        self.assertEqual(config.further_listeners, (Listener(endpoint="unix:1"),))

    def test_mistakes(self) -> None:
        """A mistake in a listener is reported with its index."""
        for table, mistake in [
            ("{}", "listeners[0]: port, path or endpoint must be set"),
            (
                "{port = 1, limits = {max_lin = 5}}",
                "listeners[0]: limits: there is no limit max_lin",
            ),
            (
                "{port = 1, path = '/x'}",
                "listeners[0]: only one of port, path and endpoint may be set",
            ),
            ("{prt = 1}", "there is no setting listeners[0].prt; did you mean listeners[0].port?"),
        ]:
            error = self.assertRaises(
                ConfigError, load_config, ("net.toml", f"listeners = [{table}]"), {}, {}
            )
            self.assertEqual(error.mistakes, [f"net.toml: {mistake}"])


class ProtectionTests(SynchronousTestCase):
    """Without users only this machine is served, unless ``auth.open`` is set."""

    def refused(self, **settings: Any) -> str:  # Any: fields of Config
        """Return the error message for invalid settings."""
        return str(self.assertRaises(ValueError, Config, **settings))

    def test_interface(self) -> None:
        """An interface that other machines can reach requires users, or ``auth.open``."""
        for interface in ("", "::", "0.0.0.0", "192.0.2.1"):
            tcp = TcpSettings(interface=interface)
            self.assertEqual(
                self.refused(tcp=tcp),
                "tcp.interface: reachable from other machines, but there are no users: "
                "set auth.users, or set auth.open = true to allow all commands to all clients",
            )
            for auth in (
                AuthSettings(open=True),
                AuthSettings(users="users.toml"),
                AuthSettings(checkers=("file:x",)),
            ):
                Config(tcp=tcp, auth=auth)
        for interface in ("127.0.0.1", "::1", "127.9.9.9"):
            Config(tcp=TcpSettings(interface=interface))
        Config(tcp=TcpSettings(interface="", enabled=False))

    def test_listeners(self) -> None:
        """Each listener that other machines can reach is named."""
        self.assertTrue(
            self.refused(
                tcp=TcpSettings(interface=""),
                listeners=("tcp:1", "unix:/run/x", Listener(port=1, interface="::")),
            ).startswith("tcp.interface, listeners[0], listeners[2]: reachable")
        )

    def test_descriptions(self) -> None:
        """Descriptions of TCP and TLS endpoints are checked; others when a client connects."""
        for description in ("tcp:1", "tcp6:1", "ssl:1:interface=192.0.2.1", "tls:x:tcp:1"):
            self.assertIn("listeners[0]", self.refused(listeners=(description,)))
        for description in (
            "tcp:1:interface=127.0.0.1",
            r"tcp6:1:interface=\:\:1",
            "unix:/run/x",
            "systemd:domain=INET:index=0",
        ):
            Config(listeners=(description,))
        Config(listeners=(Listener(path="/run/x"), Listener(port=1)))

    def test_coap(self) -> None:
        """CoAP without DTLS has no logins: beside them it may do what the anonymous may."""
        for interface in ("127.0.0.1", ""):
            Config(
                coap=CoapSettings(enabled=True, interface=interface), auth=AuthSettings(users="x")
            )

    def test_coap_for_others(self) -> None:
        """CoAP serves other machines only with ``auth.open``, or over DTLS with users."""
        for interface in ("", "::", "192.0.2.1"):
            coap = CoapSettings(enabled=True, interface=interface)
            self.assertTrue(self.refused(coap=coap).startswith("coap.interface: reachable"))
            Config(coap=coap, auth=AuthSettings(open=True))
            tls = CoapDtlsSettings(certificate="a.pem", client_ca="c.pem", interface=interface)
            secure = CoapSettings(dtls=tls)
            refused = self.refused(tcp=TcpSettings(interface="::"), coap=secure)
            self.assertTrue(refused.startswith("tcp.interface, coap.dtls.interface: reach"))
            for auth in (AuthSettings(users="x"), AuthSettings(open=True)):
                Config(coap=secure, auth=auth)
        Config(coap=CoapSettings(interface="::", dtls=CoapDtlsSettings(interface="::")))

    def test_coap_over_dtls(self) -> None:
        """Over DTLS, logins require client certificates or pre-shared keys."""
        auth = AuthSettings(users="x")
        bare = CoapDtlsSettings(certificate="a.pem")
        self.assertIn("coap.dtls.client_ca", self.refused(coap=CoapSettings(dtls=bare), auth=auth))
        Config(coap=CoapSettings(dtls=bare))
        for asked in ("required", "optional"):
            tls = CoapDtlsSettings(
                certificate="a.pem",
                client_ca="ca.pem",
                client_certificate=asked,
            )
            Config(coap=CoapSettings(dtls=tls), auth=auth)
        keys = CoapDtlsSettings(certificate="a.pem", psk="keys.toml")
        Config(coap=CoapSettings(dtls=keys), auth=auth)

    def test_dtls_alone(self) -> None:
        """DTLS alone is something to serve; it is disabled without a certificate."""
        nothing = {"tcp": TcpSettings(enabled=False), "udp": UdpSettings(enabled=False)}
        self.assertIn("nothing is served", self.refused(**nothing))
        tls = CoapDtlsSettings(certificate="a.pem")
        Config(**nothing, coap=CoapSettings(dtls=tls))  # type: ignore[arg-type]  # fields
        self.assertFalse(Config().coap.dtls.enabled or Config().udp.dtls.enabled)
        self.assertEqual((Config().coap.dtls.port, Config().udp.dtls.port), (5684, 9998))

    def test_dtls_mistakes(self) -> None:
        """A mistake in a nested table is reported with its whole key."""
        for text, mistake in (
            ("mtu = 255", "coap.dtls.mtu is 255, must be an integer from 256 to 16384"),
            ('interface = "x"', "coap.dtls.interface must be a numeric address"),
            ('key = "a.pem"', "coap.dtls: key is set without certificate"),
            ("max_session = 1", "there is no setting coap.dtls.max_session; did you mean"),
        ):
            file = ("net.toml", f"[coap.dtls]\n{text}\n")
            error = self.assertRaises(ConfigError, load_config, file, {}, {})
            (line,) = error.mistakes
            self.assertTrue(line.startswith(f"net.toml: {mistake}"), line)

    def test_secret(self) -> None:
        """The checkers, which may contain passwords, are not printed."""
        text = to_toml(Config(auth=AuthSettings(checkers=("memory:ann:sesame",))))
        self.assertNotIn("sesame", text)


class LoadConfigTests(SynchronousTestCase):
    """:func:`load_config`: the environment overrides the file, and options override both."""

    def test_precedence(self) -> None:
        """Options override variables, variables the file, the file the defaults."""
        file = ("net.toml", "threads = 1\n[tcp]\nport = 1\nbacklog = 1\nmax_line = 100")
        environ = {"TWISTED_NET_TCP__PORT": "2", "TWISTED_NET_TCP__BACKLOG": "2", "HOME": "/"}
        loaded = load_config(file, environ, {"tcp-port": "3"})
        self.assertEqual(
            loaded.record, Config(threads=1, tcp=TcpSettings(port=3, backlog=2, max_line=100))
        )
        self.assertEqual(
            loaded.origins,
            {
                "threads": "net.toml",
                "tcp.port": "--tcp-port",
                "tcp.backlog": "TWISTED_NET_TCP__BACKLOG",
                "tcp.max_line": "net.toml",
            },
        )

    def test_no_file(self) -> None:
        """Without a file and without settings the defaults are loaded."""
        self.assertEqual(load_config(None, {}, {}).record, Config())

    def test_all_mistakes_at_once(self) -> None:
        """Every mistake of every layer is reported in a line of its own."""
        file = ("net.toml", "[tcp]\nmax_conections = 5\nport = 'x'")
        error = self.assertRaises(
            ConfigError, load_config, file, {"TWISTED_NET_UPD__PORT": "1"}, {"udp-port": "-1"}
        )
        self.assertEqual(
            error.mistakes,
            [
                "net.toml: there is no setting tcp.max_conections; did you mean "
                "tcp.max_connections?",
                'net.toml: tcp.port is "x", must be an integer from 0 to 65535',
                "TWISTED_NET_UPD__PORT: there is no such setting; did you mean "
                "TWISTED_NET_UDP__PORT?",
                '--udp-port: udp.port is "-1", must be an integer from 0 to 65535 or none',
            ],
        )

    def test_udp_sockets(self) -> None:
        """A socket with an invalid description is reported with its index."""
        text = '[udp]\nport = "none"\nsockets = ["udp:1", "udp:x"]\n'
        error = self.assertRaises(ConfigError, load_config, ("net.toml", text), {}, {})
        self.assertEqual(
            error.mistakes,
            [
                "net.toml: udp.sockets[1]: 'udp:x' is not a socket spec: the port must be a number "
                "from 0 to 65535, not 'x'"
            ],
        )
        options = {"udp-sockets": "udp:1:interface=[::1],fd:3", "udp-port": "none"}
        config = load_config(None, {}, options).record
        self.assertEqual(list(map(str, config.udp.socket_specs)), ["[::1]:1", "fd:3"])

    def test_earlier_mistakes(self) -> None:
        """Mistakes that were found before are reported first."""
        error = self.assertRaises(
            ConfigError,
            load_config,
            None,
            {},
            {"tcp-port": "x", "udp-interface": "localhost"},
            ["net.toml: No such file or directory"],
        )
        self.assertEqual(
            error.mistakes,
            [
                "net.toml: No such file or directory",
                '--tcp-port: tcp.port is "x", must be an integer from 0 to 65535',
                "--udp-interface: udp.interface must be a numeric address, such as 127.0.0.1 or "
                "::1, or \"\", not 'localhost'",
            ],
        )

    def test_rules(self) -> None:
        """A contradiction between settings is reported with the layers that set them."""
        error = self.assertRaises(
            ConfigError,
            load_config,
            ("net.toml", "tcp.enabled = false"),
            {},
            {"udp-enabled": "false"},
        )
        self.assertEqual(
            error.mistakes,
            [
                "net.toml, --udp-enabled: tcp.enabled and udp.enabled are both false: "
                "nothing is served"
            ],
        )


class GroupTests(SynchronousTestCase):
    """Invalid multicast groups are reported with the name of the setting."""

    def test_family(self) -> None:
        """An IPv6 group requires an IPv6 port."""
        groups = GroupSettings(groups=("ff02::fd",), interfaces=("lo",))
        with self.assertRaises(ValueError) as raised:
            CoapSettings(multicast=groups)
        self.assertIn("CoapSettings.multicast.groups: ff02::fd", str(raised.exception))
        CoapSettings(multicast=groups, interface="::1")

    def test_no_port(self) -> None:
        """Groups use ``udp.port``, which must be set."""
        groups = UdpGroupSettings(groups=("239.0.0.9",))
        with self.assertRaises(ValueError) as raised:
            UdpSettings(port=None, sockets=("udp:9",), multicast=groups)
        self.assertIn("requires a port", str(raised.exception))


class DocumentationTests(SynchronousTestCase):
    """The page about the configuration shows all settings."""

    def test_all_settings(self) -> None:
        """``docs/settings.toml`` is what ``twisted-net print-config`` prints without options."""
        page = Path(__file__).resolve().parents[2] / "docs" / "settings.toml"
        self.assertEqual(page.read_text(), to_toml(Config()))
