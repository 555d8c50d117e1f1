"""Tests of :mod:`twisted_net.http.cache.rules`, under the sections of RFC 9111."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.entry import CacheRequest, Entry, ReceiptTimes, replace_variant
from twisted_net.http.cache.freshness import HEURISTICALLY_CACHEABLE
from twisted_net.http.cache.invalidation import invalidated_keys
from twisted_net.http.cache.rules import (
    Decision,
    FetchRemainder,
    Forward,
    Revalidate,
    Rules,
    Serve,
    Unsatisfiable,
)
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.dates import format_date
from twisted_net.http.fields import HeaderFields

NOW = 1_795_305_600.0
AT_ONCE = ReceiptTimes(NOW, NOW, NOW)
KEY = "http://a.example/p"
Pairs = Sequence[tuple[str, str]]


def make_request(method: str = "GET", *pairs: tuple[str, str]) -> CacheRequest:
    """Return a request."""
    return CacheRequest(method, KEY, HeaderFields(pairs))


class RulesTestCase(SynchronousTestCase):
    """A private cache, and how to fill it."""

    settings = CacheSettings()

    def setUp(self) -> None:
        self.rules = Rules(self.settings)

    def stored(
        self,
        *pairs: tuple[str, str],
        status: int = 200,
        request: CacheRequest | None = None,
        delay: float = 0.0,
        ahead: float = 0.0,
    ) -> list[Entry]:
        """
        Return the stored entries after this response, received at NOW after *delay*.

        :param ahead: seconds by which the clock of the cache is before the wall clock.
        """
        request = request or make_request()
        fields = HeaderFields(pairs)
        if not self.rules.storable(request, status, fields, NOW):
            return []
        times = ReceiptTimes(NOW + ahead - delay, NOW + ahead, NOW)
        return [self.rules.make_entry(request, status, "OK", fields, b"body", times)]

    def decide(
        self, stored: Sequence[Entry], later: float, *pairs: tuple[str, str], method: str = "GET"
    ) -> Decision:
        """Return the decision on a request with these fields, *later* seconds after NOW."""
        return self.rules.lookup(make_request(method, *pairs), stored, NOW + later)

    def lifetime(self, stored: Sequence[Entry]) -> float | None:
        """Return the last whole second at which a plain request is served; None if never."""
        fresh = [
            second
            for second in (*range(130), 299, 300, 3599, 3600)
            if isinstance(self.decide(stored, second), Serve)
        ]
        return fresh[-1] if fresh else None


class FreshnessTests(RulesTestCase):
    """§4.2: a response is fresh while its age is below its lifetime."""

    def test_max_age(self) -> None:
        """It is served with its age until its lifetime is over."""
        stored = self.stored(("Cache-Control", "max-age=60"))
        decision = self.decide(stored, 59.5)
        self.assertEqual(decision, Serve(stored[0], 59.5, 0.5))
        self.assertEqual(self.decide(stored, 60), Forward("stale", stored[0]))

    def test_expires(self) -> None:
        """``Expires`` counts from ``Date``, and without one from the receipt."""
        expires = ("Expires", format_date(NOW + 60))
        self.assertEqual(self.lifetime(self.stored(expires)), 59)
        date = ("Date", format_date(NOW - 10))
        self.assertEqual(self.lifetime(self.stored(expires, date)), 59)

    def test_server_clock_is_wrong(self) -> None:
        """A server whose clock is ahead or behind gets the lifetime that it states."""
        for skew in (-5000, 5000):
            fields = (
                ("Date", format_date(NOW + skew)),
                ("Expires", format_date(NOW + skew + 60)),
            )
            stored = self.stored(*fields, ("ETag", '"x"'))
            # Behind: it seems to have been made long ago, and so is old at once (§4.2.3).
            self.assertEqual(self.lifetime(stored), None if skew < 0 else 59)

    def test_max_age_before_expires(self) -> None:
        """§5.3: with max-age, ``Expires`` is ignored."""
        stored = self.stored(
            ("Cache-Control", "max-age=60"), ("Expires", format_date(NOW - 9999)), ("ETag", '"x"')
        )
        self.assertEqual(self.lifetime(stored), 59)

    def test_invalid_expires(self) -> None:
        """§5.3: an invalid date, "0" above all, means already expired."""
        for text in ("0", "-1", "never", "", format_date(NOW + 60) + "x"):
            with self.subTest(text=text):
                self.assertEqual(
                    self.lifetime(self.stored(("Expires", text), ("ETag", '"x"'))), None
                )
        self.assertEqual(self.stored(("Expires", "0")), [])

    def test_s_maxage_is_not_for_private_caches(self) -> None:
        """§5.2.2.10: a private cache ignores it."""
        stored = self.stored(("Cache-Control", "s-maxage=9, max-age=60"))
        self.assertEqual(self.lifetime(stored), 59)

    def test_first_of_two(self) -> None:
        """§4.2.1: of a directive that occurs twice the first counts."""
        stored = self.stored(("Cache-Control", "max-age=60"), ("Cache-Control", "max-age=5"))
        self.assertEqual(self.lifetime(stored), 59)

    def test_invalid_max_age(self) -> None:
        """§4.2.1: a malformed number of seconds means stale."""
        for text in ("max-age", "max-age=", "max-age=-1", "max-age=x", "max-age=1.5", "max-age=६०"):
            with self.subTest(text=text):
                self.assertEqual(self.stored(("Cache-Control", text)), [])

    def test_huge_max_age(self) -> None:
        """§1.2.2: a number too large is a very long time."""
        for digits in ("9999999999", "9" * 5000):
            stored = self.stored(("Cache-Control", "max-age=" + digits))
            self.assertIsInstance(self.decide(stored, 2**31 - 1), Serve)
            self.assertEqual(self.decide(stored, 2**31), Forward("stale", stored[0]))

    def test_quoted_max_age(self) -> None:
        """An argument in quotes is one without."""
        self.assertEqual(self.lifetime(self.stored(("Cache-Control", 'max-age="60"'))), 59)


class AgeTests(RulesTestCase):
    """§4.2.3: how old a response is."""

    def test_age_field(self) -> None:
        """``Age`` counts, and the response delay is added."""
        stored = self.stored(("Cache-Control", "max-age=60"), ("Age", "30"), delay=5.0)
        self.assertEqual(stored[0].age(NOW + 1), 36.0)
        self.assertEqual(self.lifetime(stored), 24)

    def test_date(self) -> None:
        """Without ``Age``, its age is the time since ``Date``; the greater of both counts."""
        date = ("Date", format_date(NOW - 20))
        stored = self.stored(("Cache-Control", "max-age=60"), date)
        self.assertEqual(stored[0].age(NOW), 20.0)
        stored = self.stored(("Cache-Control", "max-age=60"), date, ("Age", "5"))
        self.assertEqual(stored[0].age(NOW), 20.0)

    def test_first_age(self) -> None:
        """§5.1: of several ages the first counts; a malformed one is ignored."""
        for lines, age in (
            ((("Age", "7"), ("Age", "9")), 7.0),
            ((("Age", "7, 9"),), 7.0),
            ((("Age", "x"),), 0.0),
            ((("Age", "-7"),), 0.0),
            ((("Age", "7.5"),), 0.0),
            ((("Age", ""),), 0.0),
        ):
            with self.subTest(lines=lines):
                stored = self.stored(("Cache-Control", "max-age=60"), *lines)
                self.assertEqual(stored[0].age(NOW), age)

    def test_from_the_future(self) -> None:
        """A response that was received later than now is stale, whatever its lifetime."""
        century = ("Expires", format_date(NOW + 100 * 365 * 86_400))
        for lifetime in (
            ("Cache-Control", "max-age=60, stale-while-revalidate=60, stale-if-error=60"),
            ("Cache-Control", "max-age=99999999999"),
            ("Cache-Control", "max-age=99999999999, immutable"),
            century,
        ):
            with self.subTest(lifetime=lifetime):
                stored = self.stored(lifetime, ("Age", "30"))
                self.assertIsInstance(self.decide(stored, 0.0), Serve)
                decision = self.decide(stored, -0.1)
                self.assertEqual(decision, Forward("stale", stored[0]))
                self.assertFalse(self.rules.stale_on_error(make_request(), stored[0], NOW - 0.1))
        stored = self.stored(("Cache-Control", "max-age=60"), ("ETag", '"x"'))
        self.assertIsInstance(self.decide(stored, -3600), Revalidate)
        only = ("Cache-Control", "only-if-cached")
        self.assertEqual(self.decide(stored, -3600, only), Unsatisfiable())
        decision = self.decide(stored, -3600, ("Cache-Control", "max-stale"))
        assert isinstance(decision, Serve)
        self.assertEqual(decision.age, 2**31, "RFC 9111 §1.2.2")

    def test_two_clocks(self) -> None:
        """The age grows by the clock of the cache; dates are compared with the wall clock."""
        for ahead in (-3600.0, 3600.0):
            stored = self.stored(
                ("Cache-Control", "max-age=60"),
                ("Date", format_date(NOW - 20)),
                ("Age", "5"),
                ahead=ahead,
                delay=2.0,
            )
            self.assertEqual(stored[0].age(NOW + ahead), 20.0)
            self.assertEqual(stored[0].age(NOW + ahead + 7), 27.0)
            [undated] = self.stored(("Expires", format_date(NOW + 60)), ahead=ahead)
            self.assertEqual(undated.explicit_lifetime, 60.0)
            self.assertEqual(undated.fields["date"], format_date(NOW))
            [guessed] = self.stored(("Last-Modified", format_date(NOW - 100)), ahead=ahead)
            self.assertAlmostEqual(guessed.heuristic_lifetime or 0.0, 10.0)
            times = ReceiptTimes(NOW + ahead, NOW + ahead + 1, NOW + 1)
            fields = HeaderFields([("Cache-Control", "max-age=60")])
            again = self.rules.freshen(make_request(), undated, fields, times)
            self.assertEqual(again.age(NOW + ahead + 1), 1.0)
            self.assertEqual(again.fields["date"], format_date(NOW + 1))


class StorableTests(RulesTestCase):
    """§3: which responses may be stored."""

    FRESH = ("Cache-Control", "max-age=60")

    def test_methods(self) -> None:
        """Only responses to GET are."""
        for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"):
            self.assertEqual(self.stored(self.FRESH, request=make_request(method)), [])

    def test_statuses(self) -> None:
        """Final ones are if their lifetime is explicit, except 304 and a 206 without a range."""
        for status in (200, 203, 302, 404, 410, 418, 500):
            self.assertEqual(len(self.stored(self.FRESH, status=status)), 1)
        for status in (100, 103, 206, 304):
            self.assertEqual(self.stored(self.FRESH, status=status), [])

    def test_no_store(self) -> None:
        """§5.2.2.5, §5.2.1.5: either side may forbid it."""
        self.assertEqual(self.stored(("Cache-Control", "max-age=60, NO-STORE")), [])
        request = make_request("GET", ("Cache-Control", "no-store"))
        self.assertEqual(self.stored(self.FRESH, request=request), [])

    def test_ranges(self) -> None:
        """A complete response to a range request is stored; a 416 is not."""
        request = make_request("GET", ("Range", "bytes=0-1"))
        self.assertEqual(len(self.stored(self.FRESH, request=request)), 1)
        self.assertEqual(self.stored(self.FRESH, request=request, status=416), [])

    def test_private(self) -> None:
        """§5.2.2.7: this cache is private."""
        stored = self.stored(("Cache-Control", "private, max-age=60"))
        self.assertEqual(self.lifetime(stored), 59)

    def test_nothing_said(self) -> None:
        """A response without lifetime and validator is not stored."""
        self.assertEqual(self.stored(), [])
        self.assertEqual(self.stored(("Cache-Control", "max-age=0")), [])
        self.assertEqual(self.stored(("Cache-Control", "no-cache, max-age=60")), [])

    def test_validator(self) -> None:
        """With a validator it is stored, and validated later."""
        for name in ("ETag", "Last-Modified"):
            self.assertEqual(len(self.stored((name, '"x"'))), 1)
            self.assertEqual(len(self.stored((name, '"x"'), ("Cache-Control", "no-cache"))), 1)
        self.assertEqual(self.stored(("ETag", '"x"'), status=500), [])
        self.assertEqual(
            len(self.stored(("ETag", '"x"'), ("Cache-Control", "public"), status=500)), 1
        )

    def test_vary_star(self) -> None:
        """§4.1: a response with ``Vary: *`` is not stored."""
        self.assertEqual(self.stored(self.FRESH, ("Vary", "Accept, *")), [])

    def test_hop_by_hop(self) -> None:
        """§3.1: fields of a single connection, or listed by ``Connection``, are not stored."""
        stored = self.stored(
            self.FRESH,
            ("Connection", "X-Hop, close"),
            ("X-Hop", "1"),
            ("Keep-Alive", "1"),
            ("Transfer-Encoding", "chunked"),
            ("X-End", "1"),
        )
        self.assertEqual(
            list(stored[0].fields), ["cache-control", "x-end", "date", "content-length"]
        )

    def test_size(self) -> None:
        """A body over the limit does not fit."""
        rules = Rules(CacheSettings(max_object=10))
        self.assertTrue(rules.fits(10))
        self.assertFalse(rules.fits(11))

    def test_nothing_has_no_length(self) -> None:
        """A 204 is stored without a length, any other answer with that of its body."""
        for status, length in ((204, None), (200, "4")):
            [entry] = self.stored(("Cache-Control", "max-age=60"), status=status)
            self.assertEqual(entry.fields.get("content-length"), length)

    def test_no_such_range(self) -> None:
        """A 416 is of the range that was asked for; without one it is an answer as any other."""
        fields = ("Cache-Control", "max-age=60")
        part = make_request("GET", ("Range", "bytes=9-"))
        self.assertEqual(self.stored(fields, status=416, request=part), [])
        self.assertEqual(len(self.stored(fields, status=416)), 1)


class DefaultLifetimeTests(RulesTestCase):
    """``default_ttl`` is the lifetime of responses that state none."""

    settings = CacheSettings(default_ttl=300.0)

    def test_nothing_said(self) -> None:
        """It is used if the server states none."""
        self.assertEqual(self.lifetime(self.stored()), 299)

    def test_something_said(self) -> None:
        """What the server states takes precedence."""
        self.assertEqual(self.lifetime(self.stored(("Cache-Control", "max-age=60"))), 59)
        self.assertEqual(self.stored(("Cache-Control", "no-store")), [])
        self.assertEqual(self.stored(("Cache-Control", "no-cache")), [])
        self.assertEqual(self.stored(("Expires", "0")), [])

    def test_statuses(self) -> None:
        """It is for the statuses of RFC 9110 §15.1 alone, not for errors of the server."""
        kept = {status for status in range(200, 600) if self.stored(status=status)}
        self.assertEqual(kept, set(HEURISTICALLY_CACHEABLE) - {206})

    def test_for_one_call(self) -> None:
        """A call may have its own, or none; it applies to entries stored by other calls."""
        stored = self.stored()
        self.rules = self.rules.with_default_ttl(10.0)
        self.assertEqual(self.lifetime(stored), 9)
        self.rules = self.rules.with_default_ttl(None)
        self.assertEqual(self.decide(stored, 1), Forward("stale", stored[0]))
        self.assertEqual(self.stored(), [])


class LookupTests(RulesTestCase):
    """§4: which requests are answered from the store."""

    def setUp(self) -> None:
        super().setUp()
        self.kept = self.stored(("Cache-Control", "max-age=60"), ("ETag", '"x"'))

    def test_nothing_stored(self) -> None:
        """The request is forwarded."""
        self.assertEqual(self.decide([], 0), Forward("uri-miss"))

    def test_other_methods(self) -> None:
        """HEAD is served from a response to GET; other methods are not."""
        self.assertIsInstance(self.decide(self.kept, 0, method="HEAD"), Serve)
        stale = Forward("stale", self.kept[0])
        self.assertEqual(self.decide(self.kept, 60, method="HEAD"), stale)
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            self.assertEqual(self.decide(self.kept, 0, method=method), Forward("method"))

    def test_own_conditions(self) -> None:
        """§4.3.2: conditions for the origin server are forwarded."""
        for name in ("If-Match", "If-Unmodified-Since"):
            self.assertEqual(self.decide(self.kept, 0, (name, "x")), Forward("request"))
        for name in ("If-None-Match", "If-Modified-Since"):
            self.assertIsInstance(self.decide(self.kept, 0, (name, "x")), Serve)

    def test_tags_of_the_caller(self) -> None:
        """§4.3.1: a validation of a stale response has the caller's tags too."""
        decision = self.decide(self.kept, 60, ("If-None-Match", '"y", "x", *'))
        self.assertEqual(decision, Revalidate(self.kept[0], [("If-None-Match", '"x", "y"')]))

    def test_request_no_store(self) -> None:
        """§5.2.1.5: a request with ``no-store`` is forwarded."""
        self.assertEqual(
            self.decide(self.kept, 0, ("Cache-Control", "no-store")), Forward("request")
        )

    def test_request_no_cache(self) -> None:
        """§5.2.1.4, §5.4: a fresh response is validated if the request demands it."""
        revalidate = Revalidate(self.kept[0], [("If-None-Match", '"x"')], "request")
        self.assertEqual(self.decide(self.kept, 0, ("Cache-Control", "no-cache")), revalidate)
        self.assertEqual(self.decide(self.kept, 0, ("Pragma", "No-Cache")), revalidate)
        ignored = (("Pragma", "no-cache"), ("Cache-Control", "max-age=60"))
        self.assertIsInstance(self.decide(self.kept, 0, *ignored), Serve)
        self.assertIsInstance(self.decide(self.kept, 0, ("Pragma", "x")), Serve)
        kept = self.stored(("Cache-Control", "max-age=60"))
        asked_anew = Forward("request", kept[0])
        self.assertEqual(self.decide(kept, 0, ("Cache-Control", "no-cache")), asked_anew)
        self.assertEqual(self.decide(kept, 60), Forward("stale", kept[0]))

    def test_request_max_age(self) -> None:
        """§5.2.1.1: a response of this age at most."""
        self.assertIsInstance(self.decide(self.kept, 9, ("Cache-Control", "max-age=9")), Serve)
        self.assertIsInstance(
            self.decide(self.kept, 10, ("Cache-Control", "max-age=9")), Revalidate
        )

    def test_request_min_fresh(self) -> None:
        """§5.2.1.3: a response that stays fresh for so long."""
        self.assertIsInstance(self.decide(self.kept, 50, ("Cache-Control", "min-fresh=10")), Serve)
        self.assertIsInstance(
            self.decide(self.kept, 51, ("Cache-Control", "min-fresh=10")), Revalidate
        )

    def test_request_max_stale(self) -> None:
        """§5.2.1.2: a stale response is served, if it is stale for no longer than that."""
        stale = ("Cache-Control", "max-stale=10")
        self.assertIsInstance(self.decide(self.kept, 59, stale), Serve)
        self.assertIsInstance(self.decide(self.kept, 70, stale), Serve)
        self.assertIsInstance(self.decide(self.kept, 71, stale), Revalidate)
        self.assertIsInstance(self.decide(self.kept, 9999, ("Cache-Control", "max-stale")), Serve)

    def test_must_revalidate(self) -> None:
        """§5.2.2.2: ``must-revalidate`` forbids it."""
        kept = self.stored(("Cache-Control", "max-age=60, must-revalidate"), ("ETag", '"x"'))
        self.assertIsInstance(self.decide(kept, 70, ("Cache-Control", "max-stale")), Revalidate)

    def test_response_no_cache(self) -> None:
        """§5.2.2.4: a response with ``no-cache`` is validated each time."""
        kept = self.stored(("Cache-Control", "no-cache, max-age=60"), ("ETag", '"x"'))
        self.assertIsInstance(self.decide(kept, 0), Revalidate)
        self.assertIsInstance(self.decide(kept, 0, ("Cache-Control", "max-stale")), Revalidate)

    def test_response_no_cache_of_fields(self) -> None:
        """§5.2.2.4: if it names fields, only these are not stored."""
        named = ("Cache-Control", 'max-age=60, no-cache="set-cookie, X"')
        kept = self.stored(named, ("Set-Cookie", "a=b"), ("x", "1"), ("y", "1"))
        self.assertIsInstance(self.decide(kept, 0), Serve)
        self.assertEqual(
            [name for name in ("set-cookie", "x", "y") if name in kept[0].fields], ["y"]
        )

    def test_only_if_cached(self) -> None:
        """§5.2.1.7: a stored response or 504; no request is forwarded."""
        only = ("Cache-Control", "only-if-cached")
        self.assertIsInstance(self.decide(self.kept, 0, only), Serve)
        self.assertEqual(self.decide(self.kept, 60, only), Unsatisfiable())
        self.assertEqual(self.decide([], 0, only), Unsatisfiable())
        self.assertEqual(self.decide([], 0, ("Cache-Control", "max-age=1")), Forward("uri-miss"))

    def test_validators(self) -> None:
        """§4.3.1: a stale response is validated with all its validators."""
        when = format_date(NOW - 9)
        kept = self.stored(("ETag", 'W/"x"'), ("Last-Modified", when))
        conditions = [("If-None-Match", 'W/"x"'), ("If-Modified-Since", when)]
        self.assertEqual(self.decide(kept, 10), Revalidate(kept[0], conditions))


class VaryTests(RulesTestCase):
    """§4.1: a response is selected for requests with the same fields of its ``Vary``."""

    def setUp(self) -> None:
        super().setUp()
        self.kept: list[Entry] = []
        for language in ("en", "de, fr"):
            request = make_request("GET", ("Accept-Language", language))
            self.kept += self.stored(
                ("Cache-Control", "max-age=60"),
                ("Vary", "Accept-Language, accept-LANGUAGE"),
                request=request,
            )

    def test_each_has_its_own(self) -> None:
        """The variant of the request is served."""
        for i, language in enumerate(("en", "de,fr")):
            decision = self.decide(self.kept, 0, ("Accept-Language", language))
            self.assertEqual(decision, Serve(self.kept[i], 0.0, 60.0))

    def test_none_fits(self) -> None:
        """A request with another value, or none, is forwarded; an empty value is not none."""
        self.assertEqual(self.decide(self.kept, 0, ("Accept-Language", "it")), Forward("vary-miss"))
        self.assertEqual(self.decide(self.kept, 0), Forward("vary-miss"))
        absent = self.stored(("Cache-Control", "max-age=60"), ("Vary", "X"))
        self.assertEqual(self.decide(absent, 0, ("X", "")), Forward("vary-miss"))
        self.assertIsInstance(self.decide(absent, 0), Serve)

    def test_newest_of_two(self) -> None:
        """Of two that match, the newer one is served."""
        newer = self.stored(("Cache-Control", "max-age=99"))
        decision = self.decide([*self.kept, *newer], 0, ("Accept-Language", "en"))
        self.assertEqual(decision, Serve(newer[0], 0.0, 99.0))

    def test_replace(self) -> None:
        """A new response replaces the one for the same requests; the oldest is dropped."""
        en, de = self.kept
        self.assertEqual(replace_variant([en, de], en, 5), (de, en))
        self.assertEqual(replace_variant([en], de, 1), (de,))


class UsersTests(RulesTestCase):
    """A response to one user is not served to another."""

    def test_authorization_and_cookie(self) -> None:
        """Requests with the same credentials are served, with others or none are not."""
        for name in ("Authorization", "Cookie"):
            request = make_request("GET", (name, "secret-1"))
            kept = self.stored(("Cache-Control", "max-age=60"), request=request)
            self.assertIsInstance(self.decide(kept, 0, (name, "secret-1")), Serve)
            self.assertEqual(self.decide(kept, 0, (name, "secret-2")), Forward("vary-miss"))
            self.assertEqual(self.decide(kept, 0), Forward("vary-miss"))

    def test_no_secret_is_stored(self) -> None:
        """An entry holds a digest, not the credentials."""
        request = make_request("GET", ("Authorization", "Bearer hunter2"))
        kept = self.stored(("Cache-Control", "max-age=60"), request=request)
        self.assertNotIn("hunter2", repr(kept[0]))


class SharedTests(RulesTestCase):
    """A shared cache stores what may be shared, and serves it to all users."""

    settings = CacheSettings(shared=True, default_ttl=300.0)

    def test_private(self) -> None:
        """§5.2.2.7: ``private`` responses are not stored."""
        self.assertEqual(self.stored(("Cache-Control", "private, max-age=60")), [])

    def test_s_maxage(self) -> None:
        """§5.2.2.10: ``s-maxage`` takes precedence, and forbids to serve stale."""
        kept = self.stored(("Cache-Control", "max-age=9, s-maxage=60"))
        self.assertEqual(self.lifetime(kept), 59)
        self.assertEqual(
            self.decide(kept, 70, ("Cache-Control", "max-stale")), Forward("stale", kept[0])
        )
        kept = self.stored(("Cache-Control", "max-age=60, proxy-revalidate"))
        self.assertEqual(
            self.decide(kept, 70, ("Cache-Control", "max-stale")), Forward("stale", kept[0])
        )

    def test_authorization(self) -> None:
        """§3.5: with ``Authorization``, a response is stored only if its server permits it."""
        request = make_request("GET", ("Authorization", "x"))
        self.assertEqual(self.stored(("Cache-Control", "max-age=60"), request=request), [])
        self.assertEqual(self.stored(request=request), [])
        for permit in ("public", "must-revalidate", "s-maxage=60"):
            kept = self.stored(("Cache-Control", f"max-age=60, {permit}"), request=request)
            self.assertIsInstance(self.decide(kept, 0), Serve)


class SharedFieldsTests(RulesTestCase):
    """Rules for single fields in a shared cache."""

    settings = CacheSettings(shared=True)

    def test_private_fields(self) -> None:
        """§5.2.2.7: fields that ``private`` lists are not stored; the rest is."""
        named = ("Cache-Control", 'max-age=60, private="set-cookie"')
        [entry] = self.stored(named, ("Set-Cookie", "a=b"), ("X", "1"))
        self.assertNotIn("set-cookie", entry.fields)
        self.assertIn("x", entry.fields)

    def test_users_are_not_kept_apart(self) -> None:
        """Only ``Vary`` selects responses."""
        kept = self.stored(
            ("Cache-Control", "max-age=60"), request=make_request("GET", ("Cookie", "a"))
        )
        self.assertIsInstance(self.decide(kept, 0, ("Cookie", "b")), Serve)
        self.assertEqual(self.rules.key_field_names(), ("host",))

    def test_targeted(self) -> None:
        """RFC 9213 §2.2: a targeted field counts, and ``Expires`` does not."""
        own = ("CDN-Cache-Control", "max-age=60")
        others = (("Cache-Control", "no-store"), ("Expires", "0"))
        self.assertEqual(self.lifetime(self.stored(own, *others)), 59)
        empty = ("CDN-Cache-Control", "must-revalidate")
        kept = self.stored(empty, ("Expires", format_date(NOW + 60)), ("ETag", '"x"'))
        self.assertEqual(self.lifetime(kept), None)
        self.rules = Rules(CacheSettings())
        self.assertEqual(self.stored(own, *others), [])

    def test_head(self) -> None:
        """§4.3.5: a ``private`` response to HEAD invalidates the shared one."""
        kept = self.stored(("Cache-Control", "max-age=60"))
        private = HeaderFields([("Cache-Control", "private")])
        found = self.rules.freshen_by_head(make_request("HEAD"), kept, 200, private, AT_ONCE)
        self.assertEqual(found, (None, True))


class FreshenTests(RulesTestCase):
    """§4.3.4: a 304 makes a stored response fresh."""

    def test_fields(self) -> None:
        """Its fields replace those of the same name, except those that describe the bytes."""
        request = make_request("GET", ("Accept", "a"))
        (old,) = self.stored(
            ("Cache-Control", "max-age=60"),
            ("ETag", '"x"'),
            ("Vary", "Accept"),
            ("X-A", "1"),
            ("X-B", "1"),
            ("Age", "50"),
            ("Content-Length", "4"),
            ("Content-Type", "text/plain"),
            request=request,
        )
        fields = HeaderFields(
            [
                ("Cache-Control", "max-age=90"),
                ("X-A", "2"),
                ("Content-Length", "0"),
                ("Content-Type", "x/y"),
                ("Connection", "close"),
            ]
        )
        times = ReceiptTimes(NOW + 60, NOW + 61, NOW + 61)
        new = self.rules.freshen(make_request(), old, fields, times)
        self.assertEqual(new.age(NOW + 61), 1.0)
        self.assertEqual(new.explicit_lifetime, 90.0)
        self.assertEqual((new.body, new.status), (b"body", 200))
        self.assertEqual(new.fields["x-a"], "2")
        self.assertEqual(new.fields["x-b"], "1")
        self.assertEqual(new.fields["content-length"], "4")
        self.assertEqual(new.fields["content-type"], "x/y")
        self.assertNotIn("connection", new.fields)
        self.assertNotIn("age", new.fields)
        self.assertEqual((new.vary, new.variant), (old.vary, old.variant))


class HeuristicTests(RulesTestCase):
    """§4.2.2: without an explicit lifetime, there is a heuristic one."""

    def modified(self, ago: float) -> tuple[tuple[str, str], ...]:
        """Return the fields of a response last modified so many seconds ago."""
        return ("Last-Modified", format_date(NOW - ago)), ("Date", format_date(NOW))

    def test_a_tenth(self) -> None:
        """A tenth of the time since the last change, a day at most."""
        self.assertEqual(self.lifetime(self.stored(*self.modified(600))), 59)
        [entry] = self.stored(*self.modified(10**9))
        self.assertEqual(entry.heuristic_lifetime, 86_400.0)

    def test_statuses(self) -> None:
        """For the statuses that allow it, and for all that are marked public."""
        self.assertEqual(self.stored(*self.modified(600), status=500), [])
        public = ("Cache-Control", "public")
        self.assertEqual(self.lifetime(self.stored(*self.modified(600), public, status=500)), 59)
        private = ("Cache-Control", "private")
        kept = self.stored(*self.modified(600), private, status=500)
        self.assertEqual(self.lifetime(kept), None)

    def test_off(self) -> None:
        """A fraction of 0 turns it off; a default replaces it."""
        self.rules = Rules(CacheSettings(heuristic_fraction=0.0))
        self.assertEqual(self.lifetime(self.stored(*self.modified(600))), None)
        self.rules = Rules(CacheSettings(default_ttl=10.0))
        self.assertEqual(self.lifetime(self.stored(*self.modified(600))), 9)

    def test_future(self) -> None:
        """A ``Last-Modified`` in the future yields no lifetime."""
        self.assertEqual(self.lifetime(self.stored(*self.modified(-600))), None)


class TtlByUrlTests(RulesTestCase):
    """``ttl_by_url`` sets the lifetime of responses that state none, by URL."""

    settings = CacheSettings(
        default_ttl=5.0,
        ttl_by_url=("http://a.example/* 60", "http://*.example/* 20", "http://d/* 0"),
    )

    def test_patterns(self) -> None:
        """The first pattern that matches counts, then the default; a call's own comes first."""
        for key, ttl in ((KEY, 60.0), ("http://b.example/", 20.0), ("http://c/", 5.0)):
            self.assertEqual(self.rules.default_ttl_for(key), ttl)
        self.assertEqual(self.rules.default_ttl_for("http://d/"), 0.0)
        self.assertEqual(self.lifetime(self.stored()), 59)
        self.assertEqual(self.rules.with_default_ttl(1.0).default_ttl_for(KEY), 1.0)


class StaleTests(RulesTestCase):
    """RFC 5861: responses that may be served stale."""

    def fresh(self, stored: Sequence[Entry], later: float, *pairs: tuple[str, str]) -> Serve:
        """Return the decision, which is to serve."""
        decision = self.decide(stored, later, *pairs)
        assert isinstance(decision, Serve), decision
        return decision

    def test_stale_while_revalidate(self) -> None:
        """§3: within its window it is served stale, and validated in the background."""
        kept = self.stored(("Cache-Control", "max-age=60, stale-while-revalidate=10"))
        self.assertFalse(self.fresh(kept, 59).background_revalidation)
        decision = self.fresh(kept, 65)
        self.assertEqual(
            (decision.background_revalidation, decision.freshness_remaining), (True, -5.0)
        )
        self.assertEqual(self.decide(kept, 70), Forward("stale", kept[0]))

    def test_request_directives(self) -> None:
        """A request with directives is not served stale by it."""
        kept = self.stored(("Cache-Control", "max-age=60, stale-while-revalidate=10"))
        for wish in ("max-age=99", "no-cache", "min-fresh=0"):
            self.assertIsInstance(self.decide(kept, 65, ("Cache-Control", wish)), Forward)

    def test_unknown_request_directives(self) -> None:
        """Directives that say nothing to a cache change nothing (RFC 9111 §5.2.3)."""
        kept = self.stored(("Cache-Control", "max-age=60, stale-while-revalidate=10"))
        for wish in ("x", 'x="no-cache"', "no-transform", "stale-if-error=5", "only-if-cached", ""):
            with self.subTest(wish=wish):
                decision = self.fresh(kept, 65, ("Cache-Control", wish))
                self.assertTrue(decision.background_revalidation)

    def test_must_revalidate(self) -> None:
        """§5.2.2.2 of RFC 9111: not with ``must-revalidate``."""
        for word in ("must-revalidate", "no-cache"):
            text = f"max-age=60, {word}, stale-while-revalidate=10, stale-if-error=10"
            [entry] = self.stored(("Cache-Control", text), ("ETag", '"x"'))
            self.assertIsInstance(self.decide([entry], 65), Revalidate)
            self.assertFalse(self.rules.stale_on_error(make_request(), entry, NOW + 65))

    def test_words_for_shared_caches(self) -> None:
        """What forbids shared caches to serve stale answers does not concern a private one."""
        for word in ("proxy-revalidate", "s-maxage=60"):
            text = f"max-age=60, {word}, stale-while-revalidate=10"
            for settings, kind in ((CacheSettings(), Serve), (CacheSettings(shared=True), Forward)):
                self.rules = Rules(settings)
                kept = self.stored(("Cache-Control", text))
                self.assertIsInstance(self.decide(kept, 65), kind, (word, kind))

    def test_stale_if_error(self) -> None:
        """§4: if the server fails, for as long as request or response allows."""
        [entry] = self.stored(("Cache-Control", "max-age=60, stale-if-error=10"))
        for later, holds in ((65, True), (70, False)):
            self.assertEqual(self.rules.stale_on_error(make_request(), entry, NOW + later), holds)
        request = make_request("GET", ("Cache-Control", "stale-if-error=100"))
        self.assertTrue(self.rules.stale_on_error(request, entry, NOW + 100))
        request = make_request("GET", ("Cache-Control", "no-cache, stale-if-error=100"))
        self.assertFalse(self.rules.stale_on_error(request, entry, NOW + 65))
        self.assertFalse(self.rules.stale_on_error(make_request(), None, NOW))

    def test_setting(self) -> None:
        """The setting, and that of a call in its place, allow it for all (RFC 9111 §4.2.4)."""
        rules = Rules(CacheSettings(stale_if_error=30.0, default_ttl=60.0))
        for self.rules, window in (
            (rules, 30),
            (rules.with_stale_if_error(100.0), 100),
            (rules.with_stale_if_error(100.0).with_default_ttl(60.0), 100),
            (rules.with_stale_if_error(0.0), 0),
            (rules.with_default_ttl(60.0), 30),
        ):
            for text, allowed in (
                ("max-age=60", True),
                ("public", True),
                ("max-age=60, must-revalidate", False),
                ("max-age=60, no-cache", False),
            ):
                [entry] = self.stored(("Cache-Control", text), ("ETag", '"x"'))
                with self.subTest(window=window, text=text):
                    for later, holds in ((60 + window - 1, window > 0), (60 + window, False)):
                        self.assertIs(
                            self.rules.stale_on_error(make_request(), entry, NOW + later),
                            allowed and holds,
                        )
        [entry] = self.stored(("Cache-Control", "max-age=60, stale-if-error=10"))
        self.rules = rules
        self.assertTrue(self.rules.stale_on_error(make_request(), entry, NOW + 80))
        request = make_request("GET", ("Cache-Control", "no-cache"))
        self.assertFalse(self.rules.stale_on_error(request, entry, NOW + 65))

    def test_kept_for_errors(self) -> None:
        """With the setting a response that is never fresh is stored, unless it is an error."""
        rules = Rules(CacheSettings(stale_if_error=30.0))
        for self.rules, text, count in (
            (Rules(CacheSettings()), "max-age=0", 0),
            (rules, "max-age=0", 1),
            (rules, "public", 1),
            (rules, "max-age=0, no-cache", 0),
            (rules, "max-age=0, must-revalidate", 0),
            (rules, "no-store", 0),
            (rules.with_stale_if_error(0.0), "max-age=0", 0),
        ):
            with self.subTest(text=text):
                self.assertEqual(len(self.stored(("Cache-Control", text))), count)
        fields = HeaderFields([("Cache-Control", "max-age=0")])
        for status, stored in ((200, True), (404, True), (500, False), (503, False)):
            self.assertIs(rules.storable(make_request(), status, fields, NOW), stored)

    def test_worth_its_room(self) -> None:
        """A response that is only ever served stale is stored."""
        self.assertEqual(
            len(self.stored(("Cache-Control", "max-age=0, stale-while-revalidate=9"))), 1
        )

    def test_parts(self) -> None:
        """A partial response is served neither for all of the body nor for other bytes."""
        entry = self.part()
        self.assertFalse(self.rules.stale_on_error(make_request(), entry, NOW + 65))
        for text, holds in (("bytes=2-3", True), ("bytes=0-3", False)):
            request = make_request("GET", ("Range", text))
            self.assertEqual(self.rules.stale_on_error(request, entry, NOW + 65), holds)

    def part(self) -> Entry:
        """Return bytes 2 to 5 of 10."""
        fields = HeaderFields(
            [
                ("Cache-Control", "max-age=60, stale-if-error=10"),
                ("Content-Range", "bytes 2-5/10"),
                ("ETag", '"x"'),
            ]
        )
        return self.rules.make_entry(
            make_request(), 206, "Partial Content", fields, b"cdef", AT_ONCE
        )


class ImmutableTests(RulesTestCase):
    """RFC 8246: a reload does not validate an immutable response."""

    def test_reload(self) -> None:
        """``max-age=0`` is served while it is fresh; ``no-cache`` validates."""
        kept = self.stored(("Cache-Control", "max-age=60, immutable"), ("ETag", '"x"'))
        self.assertIsInstance(self.decide(kept, 5, ("Cache-Control", "max-age=0")), Serve)
        for wish, later in (("no-cache", 5), ("max-age=4", 5), ("max-age=0", 60)):
            self.assertIsInstance(self.decide(kept, later, ("Cache-Control", wish)), Revalidate)
        stale = self.decide(kept, 60, ("Cache-Control", "max-age=0, max-stale"))
        self.assertIsInstance(stale, Revalidate)
        plain = self.stored(("Cache-Control", "max-age=60"), ("ETag", '"x"'))
        self.assertIsInstance(self.decide(plain, 0, ("Cache-Control", "max-age=0")), Revalidate)


class MustUnderstandTests(RulesTestCase):
    """§5.2.2.3: ``must-understand`` is for caches that know the status."""

    def test_known(self) -> None:
        """``no-store`` beside it is for caches that do not."""
        kept = self.stored(("Cache-Control", "must-understand, no-store, max-age=60"))
        self.assertEqual(self.lifetime(kept), 59)

    def test_unknown(self) -> None:
        """A response with a status that this cache does not know is not stored."""
        self.assertEqual(
            self.stored(("Cache-Control", "must-understand, max-age=60"), status=599), []
        )


class PartTests(RulesTestCase):
    """§3.3, §3.4: partial responses are stored, served and completed."""

    def part(self, text: str, body: bytes, *pairs: tuple[str, str]) -> list[Entry]:
        """Return the stored entry of a 206."""
        fields = HeaderFields([("Cache-Control", "max-age=60"), ("Content-Range", text), *pairs])
        request = make_request("GET", ("Range", "bytes=0-"))
        if not self.rules.storable(request, 206, fields, NOW):
            return []
        return [self.rules.make_entry(request, 206, "Partial", fields, body, AT_ONCE)]

    def test_stored(self) -> None:
        """One with a valid ``Content-Range`` is stored; others, and multipart ones, are not."""
        [entry] = self.part("bytes 2-5/10", b"cdef")
        self.assertEqual((entry.start, entry.complete_length, entry.body), (2, 10, b"cdef"))
        self.assertNotIn("content-range", entry.fields)
        self.assertEqual(self.part("bytes 2-5/*", b"cdef"), [])
        self.assertEqual(self.part("", b"cdef"), [])

    def test_served(self) -> None:
        """A request for stored bytes is served."""
        kept = self.part("bytes 2-5/10", b"cdef")
        self.assertIsInstance(self.decide(kept, 0, ("Range", "bytes=3-4")), Serve)
        self.assertEqual(self.decide(kept, 0, ("Range", "bytes=3-6")), Forward("partial"))
        self.assertEqual(self.decide(kept, 0), Forward("partial"))
        self.assertEqual(self.decide(kept, 0, method="HEAD"), Forward("partial"))

    def test_complete(self) -> None:
        """With a strong tag, the remainder of a stored start is requested."""
        [entry] = self.part("bytes 0-3/10", b"abcd", ("ETag", '"x"'))
        conditions = [("Range", "bytes=4-"), ("If-Range", '"x"')]
        self.assertEqual(self.decide([entry], 0), FetchRemainder(entry, conditions))
        self.assertEqual(self.decide([entry], 0, method="HEAD"), Forward("partial"))
        weak = self.part("bytes 0-3/10", b"abcd", ("ETag", 'W/"x"'))
        self.assertEqual(self.decide(weak, 0), Forward("partial"))

    def test_whole(self) -> None:
        """Any single range of a complete response is served; several, or of an error, are not."""
        kept = self.stored(("Cache-Control", "max-age=60"))
        self.assertIsInstance(self.decide(kept, 0, ("Range", "bytes=-1")), Serve)
        self.assertEqual(self.decide(kept, 0, ("Range", "bytes=0-0,2-2")), Forward("request"))
        coded = self.stored(("Cache-Control", "max-age=60"), ("Content-Encoding", "gzip"))
        plain = ("Accept-Encoding", "identity, br;q=0.5")
        self.assertEqual(self.decide(coded, 0, ("Range", "bytes=-1"), plain), Forward("request"))
        self.assertIsInstance(self.decide(coded, 0, ("Range", "bytes=-1")), Serve)
        self.assertIsInstance(
            self.decide(coded, 0, ("Range", "bytes=-1"), ("Accept-Encoding", "br, GZIP;q=1")), Serve
        )
        kept = self.stored(("Cache-Control", "max-age=60"), status=404)
        self.assertEqual(self.decide(kept, 0, ("Range", "bytes=-1")), Forward("request"))


class PostTests(RulesTestCase):
    """RFC 9110 §9.3.3: a response to POST that is one to GET as well."""

    def test_stored(self) -> None:
        """Only with an explicit lifetime and its own URL as ``Content-Location``."""
        here, fresh = ("Content-Location", "/p"), ("Cache-Control", "max-age=60")
        post = make_request("POST")
        self.assertEqual(self.lifetime(self.stored(here, fresh, request=post)), 59)
        for pairs, status in (
            ((here,), 200),
            ((fresh,), 200),
            ((fresh, ("Content-Location", "/q")), 200),
            ((fresh, ("Content-Location", "http://[")), 200),
            ((here, fresh), 201),
        ):
            self.assertEqual(self.stored(*pairs, request=post, status=status), [])


class HeadTests(RulesTestCase):
    """§4.3.5: a response to HEAD freshens what is stored, or shows that it is outdated."""

    def hear(
        self, stored: Sequence[Entry], status: int, *pairs: tuple[str, str]
    ) -> tuple[Entry | None, bool]:
        """Freshen the stored entries by a response received 70 s later."""
        times = ReceiptTimes(NOW + 70, NOW + 70, NOW + 70)
        return self.rules.freshen_by_head(
            make_request("HEAD"), stored, status, HeaderFields(pairs), times
        )

    def test_same(self) -> None:
        """Its fields update the stored ones."""
        kept = self.stored(("Cache-Control", "max-age=60"), ("ETag", '"x"'))
        entry, outdated = self.hear(kept, 200, ("ETag", '"x"'), ("Cache-Control", "max-age=90"))
        assert entry is not None
        self.assertEqual(
            (entry.explicit_lifetime, entry.age(NOW + 70), outdated), (90.0, 0.0, False)
        )
        self.assertEqual(entry.body, b"body")

    def test_other(self) -> None:
        """A response for another body, or one that must not be stored, invalidates it."""
        kept = self.stored(("Cache-Control", "max-age=60"), ("ETag", '"x"'))
        self.assertEqual(self.hear(kept, 200, ("ETag", '"y"')), (None, True))
        self.assertEqual(self.hear(kept, 200, ("Cache-Control", "no-store")), (None, True))

    def test_nothing_said(self) -> None:
        """An error has no effect, nor has a response for which nothing is stored."""
        kept = self.stored(("Cache-Control", "max-age=60"))
        self.assertEqual(self.hear(kept, 500), (None, False))
        self.assertEqual(self.hear([], 200), (None, False))


class SupersedesStoredTests(RulesTestCase):
    """A response that must not be stored still supersedes the stored one."""

    def test_full_answers(self) -> None:
        """A full response does; an error of the server, a 206, and another method do not."""
        fields = HeaderFields([("Cache-Control", "no-store")])
        for method, status, holds in (
            ("GET", 200, True),
            ("GET", 404, True),
            ("GET", 206, False),
            ("GET", 304, False),
            ("GET", 416, False),
            ("GET", 503, False),
            ("HEAD", 200, False),
        ):
            self.assertEqual(
                self.rules.supersedes_stored(make_request(method), status, fields), holds
            )
        self.assertFalse(self.rules.supersedes_stored(make_request(), 200, HeaderFields()))

    def test_forbids_keeping(self) -> None:
        """An entry is not kept if a 304 forbids it."""
        [entry] = self.stored(("Cache-Control", "max-age=60"))
        self.assertFalse(self.rules.forbids_keeping(entry))
        for pair in (("Cache-Control", "no-store"), ("Vary", "*")):
            new = self.rules.freshen(make_request(), entry, HeaderFields([pair]), AT_ONCE)
            self.assertTrue(self.rules.forbids_keeping(new))


class CommonMistakesTests(RulesTestCase):
    """Mistakes that other caches make."""

    def test_hishel_does_not_keep_the_times_of_request_and_response(self) -> None:
        """The response delay counts as age, and the age grows from the receipt."""
        [entry] = self.stored(("Cache-Control", "max-age=60"), ("Age", "10"), delay=30.0)
        self.assertEqual((entry.request_time, entry.response_time), (NOW - 30, NOW))
        self.assertEqual(entry.age(NOW + 5), 45.0)
        self.assertEqual(self.lifetime([entry]), 19)

    def test_the_original_takes_an_answer_of_yesterday_for_a_new_one(self) -> None:
        """An age over a day is counted in full."""
        kept = self.stored(("Cache-Control", "max-age=300"))
        self.assertEqual(self.decide(kept, 86_400 + 10), Forward("stale", kept[0]))

    def test_the_original_ignores_what_the_server_says(self) -> None:
        """``no-store`` is obeyed with a default of 300 s too."""
        self.rules = Rules(CacheSettings(default_ttl=300.0))
        self.assertEqual(self.stored(("Cache-Control", "no-store")), [])

    def test_update_of_date_and_expires(self) -> None:
        """A 304 updates ``Date`` and ``Expires``; else the age would count from the first."""
        date, expires = ("Date", format_date(NOW)), ("Expires", format_date(NOW + 60))
        [entry] = self.stored(date, expires, ("ETag", '"x"'))
        later = NOW + 100
        times = ReceiptTimes(later, later, later)
        fields = HeaderFields([("Date", format_date(later)), ("Expires", format_date(later + 60))])
        new = self.rules.freshen(make_request(), entry, fields, times)
        self.assertEqual((new.age(later), new.explicit_lifetime), (0.0, 60.0))
        new = self.rules.freshen(make_request(), entry, HeaderFields(), times)
        self.assertEqual((new.age(later), new.explicit_lifetime), (0.0, 0.0))


class HostileFieldsTests(RulesTestCase):
    """No response makes the rules fail."""

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ("Cache-Control", "Expires", "Date", "Age", "Vary", "ETag", "Last-Modified")
                ),
                st.text(max_size=30)
                | st.sampled_from(["max-age=60", "no-cache", "0", "*", format_date(NOW)]),
            ),
            max_size=6,
        ),
        st.integers(100, 599),
        st.booleans(),
    )
    def test_any_fields(self, pairs: list[tuple[str, str]], status: int, shared: bool) -> None:
        """With any fields, a served response is one that was stored, and within its lifetime."""
        rules = Rules(CacheSettings(shared=shared, default_ttl=60.0))
        fields = HeaderFields(pairs)
        invalidated_keys("POST", KEY, status, fields)
        if not rules.storable(make_request(), status, fields, NOW):
            return
        entry = rules.make_entry(make_request(), status, "", fields, b"", AT_ONCE)
        decision = rules.lookup(make_request(), [entry], NOW + 61)
        if isinstance(decision, Serve):
            self.assertGreater(entry.explicit_lifetime or 0.0, 61)
        again = rules.freshen(make_request(), entry, fields, AT_ONCE)
        self.assertEqual(again.body, entry.body)
