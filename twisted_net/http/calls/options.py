"""Options of a call: their names and types, and the checks of what is passed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from msgspec import UNSET

from twisted_net.config.type_checks import checked_range, checked_seconds, mapping_check, shown
from twisted_net.http.calls.authentication import Auth, check_auth
from twisted_net.http.calls.body import Data, Form
from twisted_net.http.calls.cookies import check_cookies
from twisted_net.http.calls.defaults import HeaderOption
from twisted_net.http.calls.http_request import is_token
from twisted_net.http.calls.multipart import Files
from twisted_net.http.calls.progress import ProgressFunction
from twisted_net.http.calls.synonyms import OPTION_SYNONYMS
from twisted_net.http.calls.timeouts import Timeouts
from twisted_net.http.retry.settings import MAX_HEDGE_AFTER, MAX_RETRIES, RetryPolicy

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
"""Methods of HTTP that need no check."""

REQUEST_UNCHANGED = frozenset(
    {
        "params",  # in the URL by then
        "timeout",
        "retries",
        "idempotent",
        "allow_redirects",
        "default_ttl",
        "stale_if_error",
        "max_body",
        "hedge_after",
    }
)
"""Options that do not change the request: with these alone a fresh response is returned at once."""

JSON_OPTIONS = REQUEST_UNCHANGED | {"json"}
"""Options of a request that is the same for everyone but for its JSON."""

_MAX_BODY = 2**63 - 1


class CommonRequestOptions(TypedDict, total=False):
    """
    Options of a call, all but ``json``. The names are those of requests and treq.

    :ivar params: added to the query of the URL: a mapping or pairs. Several values of a name are a
        list, and None is no value.
    :ivar headers: a mapping or pairs, or ``Headers`` of Twisted, as with treq. A value is text, a
        list of texts for several lines, or None for no such field. They replace the client's own.
    :ivar data: the body. Bytes, or text as UTF-8, are sent as they are; a mapping or a list of
        pairs as a form. An open file, an iterator (such as a generator) or an asynchronous one, of
        bytes or text, or an ``IBodyProducer`` is sent once and never repeated, in chunks where its
        length is not known.
    :ivar files: sent as ``multipart/form-data``, after the form in ``data``: a mapping or pairs of
        the name of a field and a file. A file is its content (bytes, text, an open file) or
        ``(name, content)``, ``(name, content, type)`` as with requests, or ``(name, type,
        content)`` as with treq.
    :ivar auth: ``(user, password)`` (RFC 7617),
        :class:`~twisted_net.http.calls.authentication.BearerToken`,
        :class:`~twisted_net.http.calls.authentication.DigestAuth`, or a function that is called
        with each request to the origin of the URL and adds to its headers; it may be a coroutine
        function. It replaces a user and password in the URL, and ``Authorization`` of the client's
        ``headers``; None is none at all. What it adds is not sent to another origin.
    :ivar cookies: sent with this call only, to the origin of the URL.
    :ivar timeout: seconds for the whole call, or
        :class:`~twisted_net.http.calls.timeouts.Timeouts`; None for no limit of the whole.
    :ivar retries: their number, or a policy.
    :ivar idempotent: whether this request may be repeated; by default the policy decides.
    :ivar cache: False to bypass the cache.
    :ivar default_ttl: seconds that a response without a lifetime of its own is fresh.
    :ivar stale_if_error: seconds past its lifetime for which a stored response is served in place
        of an error of its server, whatever the settings say; 0 for only what the server allows.
    :ivar max_body: limit of the body in bytes.
    :ivar allow_redirects: False to get a redirect as the response.
    :ivar hedge_after: seconds after which an unanswered GET or HEAD is sent a second time beside
        the first.
    :ivar proxy: URL of the proxy of this call, ``http://user:password@host:port``, whatever the
        settings say; None for no proxy.
    :ivar progress: called with a
        :class:`~twisted_net.http.calls.progress.TransferProgress` after each piece of a body that
        is sent or received; not for a response from the cache, nor for one that another call has
        requested.
    """

    params: Form
    headers: HeaderOption
    data: Data | None
    files: Files | None
    auth: Auth | None
    cookies: Mapping[str, str] | None
    timeout: float | Timeouts | None
    retries: int | RetryPolicy
    idempotent: bool
    cache: bool
    default_ttl: float | None
    stale_if_error: float
    max_body: int
    allow_redirects: bool
    hedge_after: float | None
    proxy: str | None
    progress: ProgressFunction | None


class RequestOptions(CommonRequestOptions, total=False):
    """
    Options of a call.

    :ivar json: sent as JSON: anything that msgspec encodes.
    """

    json: Any  # Any: as described


OPTIONS = mapping_check(
    RequestOptions,
    OPTION_SYNONYMS,
    # What is made of them says more of what is wrong.
    unchecked=("params", "headers", "data", "files", "auth"),
)
"""What the options of a call may be."""


def check_options(options: RequestOptions) -> None:
    """
    Check the options of a call, which type checkers see, but Python does not.

    :raises TypeError: for an option that there is not, or of another type.
    :raises ValueError: for a number out of its bounds, and for texts that cannot be sent.
    """
    if isinstance(options.get("timeout"), tuple):
        # As requests has it.
        raise TypeError(
            "Client: timeout must be a number or a Timeouts or None, not a tuple; write"
            " Timeouts(connect=…, silence=…)"
        )
    OPTIONS.check("Client", (), cast(Mapping[str, object], options))
    if "auth" in options:
        check_auth(options["auth"], "Client: auth")
    timeout = options.get("timeout")
    for seconds, name in (
        (None if isinstance(timeout, Timeouts) else timeout, "timeout"),
        (options.get("default_ttl"), "default_ttl"),
        (options.get("stale_if_error"), "stale_if_error"),
    ):
        if seconds is not None:
            checked_seconds(seconds, name)
    checked_range(options.get("max_body", 0), "max_body", 0, _MAX_BODY)
    # As the policy has them, which is made only for what the cache does not answer.
    retries, hedge_after = options.get("retries"), options.get("hedge_after")
    if isinstance(retries, int):
        checked_range(retries, "retries", 0, MAX_RETRIES)
    if hedge_after is not None and not 0 < hedge_after <= MAX_HEDGE_AFTER:
        raise ValueError(
            f"hedge_after must be above 0 and up to {MAX_HEDGE_AFTER} seconds, not {hedge_after}"
        )
    check_cookies(options.get("cookies") or {}, "Client: cookies")


def check_target(method: object, url: object) -> None:
    """
    Check what is requested of what.

    :raises TypeError: if either is no text.
    :raises ValueError: for a method that is no token (RFC 9110 §9.1).
    """
    for value, name in ((method, "method"), (url, "url")):
        if not isinstance(value, str):
            raise TypeError(f"Client: {name} must be text, not {shown(value)}")
    if not is_token(cast(str, method)):
        raise ValueError(f"Client: method must be one word of ASCII, not {method!r}")


def total_timeout(timeout: float | Timeouts | None, default: float) -> float | None:
    """Return the seconds of a whole call, for its ``timeout`` and that of the settings."""
    if not isinstance(timeout, Timeouts):
        return timeout
    return default if timeout.total is UNSET else timeout.total
