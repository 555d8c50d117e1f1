"""Tests of :mod:`twisted_net.http.settings`."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from twisted_net import __version__
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import FetchSettings, HttpSettings


class HttpSettingsTests(SynchronousTestCase):
    """:class:`HttpSettings` has the defaults of the original client."""

    def test_idle(self) -> None:
        """As many connections to an origin are kept as may be in use."""
        settings = HttpSettings()
        self.assertEqual(settings.idle_per_origin, settings.max_per_origin)

    def test_defaults(self) -> None:
        """30 s, three retries, factor 0.5, its own name."""
        settings = HttpSettings()
        self.assertEqual(settings.timeout, 30.0)
        self.assertEqual((settings.retry.retries, settings.retry.base), (3, 0.5))
        self.assertEqual(settings.user_agent, f"twisted_net/{__version__}")

    def test_nested(self) -> None:
        """It is read from a table of tables."""
        table = {"timeout": 5, "retry": {"retries": 1}, "cache": {"default_ttl": 300}}
        settings = msgspec.convert(table, HttpSettings)
        self.assertEqual(settings.retry, RetryPolicy(retries=1))
        self.assertEqual(settings.cache, CacheSettings(default_ttl=300.0))

    def test_bounds(self) -> None:
        """Values that cannot work are refused, by name."""
        for name, value in (
            ("timeout", 0.0),
            ("connect_timeout", -1.0),
            ("max_body", -1),
            ("max_redirects", 101),
            ("user_agent", "two\r\nlines"),
        ):
            error = self.assertRaises(ValueError, msgspec.convert, {name: value}, HttpSettings)
            self.assertIn(name, str(error))


class FetchSettingsTests(SynchronousTestCase):
    """:class:`FetchSettings` is an egress policy with more fields."""

    def test_read(self) -> None:
        """All fields are in one table."""
        table = {"allow": ["127.0.0.1"], "ports": [], "max_body": 10, "headers": ["x"]}
        settings = msgspec.convert(table, FetchSettings)
        self.assertEqual((settings.allow, settings.max_body), (("127.0.0.1",), 10))
        self.assertTrue(settings.public)
