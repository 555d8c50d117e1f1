"""Each error has a unique code, a message and its data."""

from __future__ import annotations

import inspect
import json
import re

from twisted.trial.unittest import SynchronousTestCase

from twisted_net import errors
from twisted_net.coap import errors as coap_errors
from twisted_net.discovery import errors as discovery_errors
from twisted_net.dtls import errors as dtls_errors
from twisted_net.errors import (
    AuthDelayed,
    AuthFailed,
    AuthRequired,
    BadArguments,
    BadQuotes,
    Banned,
    CommandError,
    CommandTimeout,
    ConfigError,
    ControlCharacter,
    EmptyMessage,
    FetchError,
    HandlersOverdue,
    Internal,
    LineTooLong,
    NotPermitted,
    NotUTF8,
    OutOfThreads,
    Protected,
    RateLimited,
    TooBusy,
    TooManyConnections,
    TwistedNetError,
    UnknownCommand,
    UnterminatedLine,
)
from twisted_net.http import errors as http_errors
from twisted_net.http.errors import (
    AddressRefused,
    BadResponse,
    BadStatus,
    BodyMismatch,
    BodyTooLarge,
    CannotConnect,
    CircuitOpen,
    ClientClosed,
    ConnectionBroken,
    FetchTimeout,
    InvalidURL,
    LookupsBusy,
    NameNotFound,
    OriginBusy,
    OutOfResources,
    TLSFailed,
    TooManyRedirects,
)
from twisted_net.udp import errors as udp_errors

ALL = {
    cls
    for module in (
        errors,
        coap_errors,
        discovery_errors,
        dtls_errors,
        http_errors,
        udp_errors,
    )
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if issubclass(cls, TwistedNetError)
}


class CodeTests(SynchronousTestCase):
    """Codes identify errors on the wire."""

    def test_own(self) -> None:
        """Each class has a unique code."""
        codes = [cls.__dict__.get("code") for cls in ALL]
        self.assertNotIn(None, codes)
        self.assertEqual(len(set(codes)), len(ALL))

    def test_spelling(self) -> None:
        """A code consists of lower case letters, digits and underscores."""
        for cls in ALL:
            self.assertTrue(re.fullmatch(r"[a-z][a-z0-9_]*", cls.code), cls)

    def test_stable(self) -> None:
        """The codes that clients of the command server see do not change."""
        for name, code in WIRE_CODES.items():
            self.assertEqual(getattr(errors, name).code, code)


WIRE_CODES = {
    "AuthDelayed": "auth_delayed",
    "AuthFailed": "auth_failed",
    "AuthRequired": "auth_required",
    "BadArguments": "bad_arguments",
    "BadQuotes": "bad_quotes",
    "CommandError": "refused",
    "CommandTimeout": "timeout",
    "ControlCharacter": "control_character",
    "EmptyMessage": "empty",
    "HandlersOverdue": "overdue",
    "Internal": "internal",
    "LineTooLong": "line_too_long",
    "NotPermitted": "not_permitted",
    "NotUTF8": "not_utf8",
    "Protected": "protected",
    "RateLimited": "rate_limited",
    "TooBusy": "busy",
    "OutOfThreads": "out_of_threads",
    "TooManyConnections": "too_many_connections",
    "Banned": "banned",
    "UnknownCommand": "unknown_command",
    "UnterminatedLine": "unterminated_line",
}

CASES: list[tuple[TwistedNetError, str, dict[str, object]]] = [
    (TwistedNetError("so"), "so", {}),
    (CommandError("no"), "no", {}),
    (EmptyMessage(), "empty message", {}),
    (UnknownCommand("NOPE"), "unknown command: NOPE", {}),
    (NotUTF8(3, 0xFF), "the line is not UTF-8: byte 0xff at position 3", {"position": 3}),
    (
        ControlCharacter(2, "\0"),
        "the line has the control character U+0000 at position 2",
        {"position": 2},
    ),
    (BadQuotes("where"), "where", {}),
    (BadArguments("which"), "which", {}),
    (LineTooLong(64), "the line is longer than 64 bytes", {"limit": 64}),
    (UnterminatedLine(), "the last line does not end with LF and was not run", {}),
    (
        Banned("user", 1.5),
        "this user is banned for another 2 s",
        {"scope": "user", "retry_after": 2},
    ),
    (TooManyConnections(9), "too many connections: the limit of this server is 9", {"limit": 9}),
    (
        TooManyConnections(9, "address"),
        "too many connections: the limit of this address is 9",
        {"limit": 9, "scope": "address"},
    ),
    (AuthRequired(), "log in first: AUTH <user> <password>, or AUTH <token>", {}),
    (AuthFailed(), "wrong user, password or token", {}),
    (
        AuthDelayed(1.23456),
        "too many failed logins; try again in 1.23 seconds",
        {"retry_after": 1.235},
    ),
    (NotPermitted("x" * 65), "not permitted: " + "x" * 64 + "…", {}),
    (
        RateLimited("network", 0.5),
        "too many commands from this network; try again in 0.5 seconds",
        {"scope": "network", "retry_after": 0.5},
    ),
    (
        Protected(),
        "this server has no users and accepts clients of its own machine only; "
        "see auth.users and auth.open",
        {},
    ),
    (CommandTimeout(2.5), "the command took longer than 2.5 seconds", {"limit": 2.5}),
    (OutOfThreads(), "this server has no thread left to run this in; try again later", {}),
    (TooBusy(4), "busy: 4 commands are pending; try again later", {"limit": 4}),
    (
        HandlersOverdue(2),
        "commands that were answered with timeout still run; connect anew",
        {"limit": 2},
    ),
    (Internal(), "internal error; see the log of the server", {}),
    (FetchError("no"), "no", {}),
    (InvalidURL("x:", "no host"), "cannot request x:: no host", {}),
    (AddressRefused("h", "private"), "h may not be reached: private", {"host": "h"}),
    (NameNotFound("h"), "no address found for h", {"host": "h"}),
    (
        CannotConnect("h", 80, "refused"),
        "cannot connect to h port 80: refused",
        {"host": "h", "port": 80},
    ),
    (
        LookupsBusy("h"),
        "too many names wait to be looked up before h; try again later",
        {"host": "h"},
    ),
    (OutOfResources("no files"), "no connection can be made from here: no files", {}),
    (TLSFailed("h", "expired"), "no secure connection to h: expired", {"host": "h"}),
    (
        FetchTimeout("body", 5),
        "time ran out while waiting for body (limit for this phase: 5 s)",
        {"phase": "body", "limit": 5, "total": False},
    ),
    (
        FetchTimeout("connect", 30, total=True),
        "time ran out while waiting for connect (limit for the whole call: 30 s)",
        {"phase": "connect", "limit": 30, "total": True},
    ),
    (
        ConnectionBroken("body", "reset"),
        "the connection ended while waiting for body: reset",
        {"phase": "body"},
    ),
    (BadResponse("no status"), "the server's response cannot be used: no status", {}),
    (BodyTooLarge(10), "the response body is larger than 10 bytes", {"limit": 10}),
    (
        BodyTooLarge(10, decoded=True),
        "the decompressed response body is larger than 10 bytes",
        {"limit": 10},
    ),
    (BodyMismatch("not JSON"), "not JSON", {}),
    (
        BadStatus(503, "Busy", "http://h/", {"Retry-After": "9"}, "oh"),
        "http://h/ answered 503 Busy",
        {"status": 503, "excerpt": "oh"},
    ),
    (
        BadStatus(599, "", "http://h/", {}, ""),
        "http://h/ answered 599",
        {"status": 599, "excerpt": ""},
    ),
    (TooManyRedirects(10), "more than 10 redirects", {"limit": 10}),
    (
        OriginBusy("h", 2, 3),
        "2 requests to h are running and 3 are waiting; try again later",
        {"host": "h"},
    ),
    (
        CircuitOpen("h", 2.25),
        "h has failed too often; no request is sent to it for 2.25 more seconds",
        {"host": "h", "retry_in": 2.25},
    ),
    (ClientClosed(), "the HTTP client is closed", {}),
    (ConfigError(["one", "two"]), "one\ntwo", {}),
]


class SentenceTests(SynchronousTestCase):
    """The message is for people, the details are for programs."""

    def test_text_and_details(self) -> None:
        """Each error has a message and details."""
        for error, text, details in CASES:
            self.assertEqual(str(error), text)
            self.assertEqual(error.details(), details, error)

    def test_all_answers_are_tried(self) -> None:
        """All errors that clients of the command server see are in these tests."""
        tried = {type(error).__name__ for error, _, _ in CASES}
        self.assertEqual(WIRE_CODES.keys() - tried, set())

    def test_details_are_json(self) -> None:
        """Details can be encoded, and do not use the names of other members of an answer."""
        for error, _, details in CASES:
            json.dumps(details)
            self.assertFalse(details.keys() & {"error", "code", "command", "event"}, error)

    def test_long_name(self) -> None:
        """The message has 64 characters of an unknown command's name, the attribute all."""
        self.assertEqual(str(UnknownCommand("x" * 64)), "unknown command: " + "x" * 64)
        error = UnknownCommand("x" * 65)
        self.assertEqual(str(error), "unknown command: " + "x" * 64 + "…")
        self.assertEqual(error.name, "x" * 65)


class RequestErrorTests(SynchronousTestCase):
    """Errors of one request name its URL, once that is known."""

    def test_url(self) -> None:
        """It begins the message, without secrets, and is in the details."""
        shown = "https://***@h/p?token=***"
        for error, rest in (
            (FetchTimeout("body", 5), {"phase": "body", "limit": 5, "total": False}),
            (ConnectionBroken("headers", "reset"), {"phase": "headers"}),
            (BadResponse("no status"), {}),
            (BodyTooLarge(10), {"limit": 10}),
            (TooManyRedirects(10), {"limit": 10}),
        ):
            message = str(error)
            self.assertEqual(error.url, "")
            error.name_url("https://user:password@h/p?token=abc")
            error.name_url("https://other/")
            self.assertEqual(str(error), f"{shown}: {message}")
            self.assertEqual((error.url, error.message), (shown, message))
            self.assertEqual(error.details(), {"url": shown, **rest})


class FetchErrorTests(SynchronousTestCase):
    """Errors of fetches say whether a retry may help."""

    def test_transient_and_unsent(self) -> None:
        """Temporary failures are transient; requests that were never sent are unsent."""
        told = {
            type(error).__name__: (error.transient, error.unsent)
            for error, _, _ in CASES
            if isinstance(error, FetchError) and not isinstance(error, FetchTimeout)
        }
        no, sent, not_sent = (False, False), (True, False), (True, True)
        self.assertEqual(
            told,
            {
                "FetchError": no,
                "InvalidURL": (False, True),
                "AddressRefused": (False, True),
                "NameNotFound": not_sent,
                "CannotConnect": not_sent,
                "OutOfResources": (False, True),
                "LookupsBusy": (False, True),
                "TLSFailed": no,
                "ConnectionBroken": sent,
                "BadResponse": no,
                "BodyTooLarge": no,
                "BodyMismatch": no,
                "BadStatus": no,
                "TooManyRedirects": no,
                "OriginBusy": (False, True),
                "CircuitOpen": (False, True),
                "ClientClosed": no,
            },
        )

    def test_timeout(self) -> None:
        """A timeout of a phase is transient, of the whole call not; while connecting, unsent."""
        self.assertTrue(FetchTimeout("headers", 1).transient)
        self.assertFalse(FetchTimeout("headers", 1, total=True).transient)
        self.assertTrue(FetchTimeout("connect", 1).unsent)
        self.assertFalse(FetchTimeout("headers", 1).unsent)
