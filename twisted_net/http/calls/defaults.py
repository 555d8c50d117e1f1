"""Defaults of a client: base URL, header, query and credentials, and how a call changes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.web.http_headers import Headers

from twisted_net.config.type_checks import shown
from twisted_net.http.calls.authentication import Auth, check_auth, fixed_authorization
from twisted_net.http.calls.body import Form, add_params, form_names, form_pairs
from twisted_net.http.calls.http_request import check_field, encoded_text
from twisted_net.http.content_coding import ACCEPTED
from twisted_net.http.errors import InvalidURL
from twisted_net.http.redirects import ORIGIN_FIELDS
from twisted_net.http.urls import encode_url, parse_target, split_credentials
from twisted_net.net.redaction import redact_url

FieldValue = str | bytes | Sequence[str | bytes] | None
HeaderOption = Mapping[str, FieldValue] | Sequence[tuple[str, FieldValue]] | Headers
"""
Header fields: name to value or list of values, pairs, or Twisted's.

None sends no such field.
"""

DEFAULT_ACCEPT = "application/json"
"""``Accept`` of requests that set none: what the original client sends, as it calls services."""

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class ClientDefaults:
    """
    What the calls of a client have in common.

    Defaults for one origin (``auth``, and the fields of
    :data:`~twisted_net.http.redirects.ORIGIN_FIELDS`) are sent to that of the base URL only, if
    there is one.

    :raises TypeError, ValueError: for a default that is none; the message says which and why.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        base_url: str | None = None,
        headers: HeaderOption | None = None,
        params: Form | None = None,
        auth: Auth | None = None,
    ) -> None:
        check_auth(auth, "Client: auth")
        self._auth = auth
        self._params = [] if params is None else form_pairs(params, "params")
        self.base = None if base_url is None else _checked_base(base_url)
        self._origin = None
        if self.base is not None:
            self._origin = parse_target(encode_url(split_credentials(self.base)[0])).origin
        self._fields = Headers()
        self._fields.setRawHeaders(b"User-Agent", [user_agent.encode()])
        self._fields.setRawHeaders(b"Accept", [DEFAULT_ACCEPT.encode()])
        self._fields.setRawHeaders(b"Accept-Encoding", [ACCEPTED.encode()])
        _replace_fields(self._fields, headers)

    @property
    def changes_urls(self) -> bool:
        """Whether URLs of calls are not those of requests."""
        return self.base is not None or bool(self._params)

    @property
    def has_credentials(self) -> bool:
        """Whether a request without options may have credentials."""
        return self._auth is not None or any(map(self._fields.hasHeader, ORIGIN_FIELDS))

    def url(self, url: str, params: object = None) -> str:
        """
        Return the URL of a request, absolute and with its query.

        A URL that is not absolute is appended to the base URL, with one slash between them; one
        that begins with a question mark, or is empty, without. *params* are added to its query,
        after those defaults whose names they do not have.

        :raises InvalidURL: for a URL that begins with two slashes: it would name another host.
        :raises TypeError: for params in no known form.
        """
        if self.base is not None and _ABSOLUTE.match(url) is None:
            if url.startswith("//"):
                raise InvalidURL(redact_url(url), "it is neither absolute nor a path")
            if not url or url.startswith("?"):
                url = f"{self.base}{url}"
            else:
                url = f"{self.base.removesuffix('/')}/{url.removeprefix('/')}"
        if params is None:
            return add_params(url, self._params)
        own = form_pairs(params, "params")
        # With those that have no value: they replace a default by nothing.
        names = form_names(params)
        return add_params(url, [pair for pair in self._params if pair[0] not in names] + own)

    def headers(self, given: HeaderOption | None, *, trusted: bool = True) -> Headers:
        """
        Return the header of a request: the fields of the call replace the client's.

        :param trusted: whether the client's credentials may be sent to its origin.
        :raises TypeError, ValueError: for a field that is none.
        """
        headers = self._fields.copy()
        if not trusted:
            for name in ORIGIN_FIELDS:
                headers.removeHeader(name)
        _replace_fields(headers, given)
        return headers

    def trusts(self, url: str) -> bool:
        """Return whether the client's credentials may be sent to the origin of an absolute URL."""
        return self._origin is None or parse_target(encode_url(url)).origin == self._origin

    def authorize(
        self,
        headers: Headers,
        options: Mapping[str, Any],  # Any: of all types
        credentials: tuple[str, str] | None,
        *,
        trusted: bool,
    ) -> Auth | None:
        """
        Add ``Authorization`` to a header that has none, where it is known before the request.

        :param credentials: those in the URL.
        :return: a function or :class:`DigestAuth` that each request is to be passed to.
        """
        auth: Auth | None = credentials or (self._auth if trusted else None)
        if "auth" in options:
            auth = options["auth"]
            if not _names_authorization(options.get("headers")):
                # That of the client, which the call replaces.
                headers.removeHeader(b"authorization")
        if auth is None:
            return None
        fixed = fixed_authorization(auth)
        given = headers.hasHeader(b"authorization")
        if fixed is None:
            # A function may have other plans than this field.
            return None if given and not callable(auth) else auth
        if not given:
            headers.setRawHeaders(b"authorization", [fixed])
        return None


def _names_authorization(given: HeaderOption | None) -> bool:
    """Return whether the header of a call, which was checked, has credentials of its own."""
    return any(encoded_text(name, "").lower() == b"authorization" for name, _ in _pairs(given))


def _checked_base(base_url: str) -> str:
    plain, _ = split_credentials(base_url)
    if "?" in plain or "#" in plain:
        raise ValueError("Client: base_url must have no query and no fragment; pass params=…")
    try:
        parse_target(encode_url(plain))
    except InvalidURL as error:
        raise ValueError(f"Client: base_url must be absolute: {error.reason}") from None
    return base_url


def _replace_fields(headers: Headers, given: HeaderOption | None) -> None:
    replaced: dict[bytes, list[bytes]] = {}
    for name, value in _pairs(given):
        label = "Client: headers"
        values = value if isinstance(value, list | tuple) else [value]
        for each in values:
            if each is not None:
                check_field(name, each, label)
        if value is None:
            check_field(name, "", label)
        lines = replaced.setdefault(encoded_text(name, label).lower(), [])
        lines += [
            encoded_text(each, f"{label}: the value of {name}")
            for each in values
            if each is not None
        ]
    for name, lines in replaced.items():
        headers.setRawHeaders(name, lines)
        if not lines:
            headers.removeHeader(name)


def _pairs(given: Any) -> Iterable[tuple[Any, Any]]:  # Any: checked here and by the caller
    if given is None:
        return []
    if isinstance(given, Mapping):
        return given.items()
    if isinstance(given, Headers):
        return given.getAllRawHeaders()
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(f"Client: headers must be a mapping or a list of pairs, not {shown(given)}")
    for pair in given:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TypeError("Client: headers: a list must be of pairs of a name and a value")
    pairs: Iterable[tuple[Any, Any]] = given
    return pairs
