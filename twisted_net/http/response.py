"""HTTP response: status, header fields and body in memory, decoded as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

import msgspec
from attrs import field, frozen
from typing_extensions import override

from twisted_net.http.bodies import twisted_headers
from twisted_net.http.calls.cookies import set_cookies
from twisted_net.http.calls.http_request import HttpRequest, RequestFields
from twisted_net.http.calls.links import WebLink, parse_links
from twisted_net.http.calls.synonyms import RESPONSE_SYNONYMS, with_synonyms
from twisted_net.http.errors import BadStatus, BodyMismatch
from twisted_net.http.fields import NO_FIELDS, HeaderFields
from twisted_net.net.characters import printable
from twisted_net.net.charsets import (
    codec_for,
    codec_of_mark,
    decode_beginning,
    decode_text,
)
from twisted_net.net.redaction import redact_url
from twisted_net.net.untrusted_json import check_numbers

_T = TypeVar("_T")

MAX_PARAMETERS = 16
"""Parameters of ``Content-Type`` that are read; usual ones are one or two."""

EXCERPT = 200
"""Characters of a body that :class:`~twisted_net.http.errors.BadStatus` carries."""


@frozen(slots=True)
class Trace:
    """
    What a response knows of its requests.

    :param headers: of the last one.
    :param body: of the last one, in memory; None if it had none, or one that is sent once.
    :param history: the responses that redirected, oldest first.
    :param set_cookies: values of ``Set-Cookie`` that came over the network with the response; None
        where it came over the network itself.
    """

    headers: HeaderFields
    body: bytes | None = None
    history: tuple[Response, ...] = ()
    set_cookies: Sequence[str] | None = None


NO_TRACE = Trace(NO_FIELDS)
"""Of a response whose requests are not known."""


class AnyResponse:
    """What a response with its body and a streamed one have in common: all but the body."""

    __slots__ = ()

    method: str
    url: str
    status: int
    reason: str
    headers: HeaderFields
    attempts: int
    age: float | None
    trace: Trace

    @property
    def from_cache(self) -> bool:
        """Whether the body came from the cache, validated by its server or not."""
        return self.age is not None

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 200 to 299."""
        return 200 <= self.status < 300

    @property
    def encoding(self) -> str:
        """
        Python's name of the charset in ``Content-Type``, or ``utf_8``.

        Charsets are those of the web, see :data:`~twisted_net.net.charsets.CODECS`. It is looked
        for in the first :data:`MAX_PARAMETERS` parameters.
        """
        return self._stated_encoding()

    def _stated_encoding(self) -> str:
        # The last of them is what is left, and no parameter.
        parameters = self.headers.get("content-type", "").split(";", MAX_PARAMETERS + 1)
        for parameter in parameters[1 : MAX_PARAMETERS + 1]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                return codec_for(value.strip().strip("\"'")) or "utf_8"
        return "utf_8"

    @property
    def cookies(self) -> dict[str, str]:
        """
        The cookies that this response sets, by name.

        Of a response from the cache they are those that a 304 has brought, and no stored ones.
        """
        lines = self.trace.set_cookies
        return set_cookies(self.headers.get_all("set-cookie") if lines is None else lines)

    @property
    def links(self) -> dict[str, WebLink]:
        """
        The first link of each relation type in ``Link`` (RFC 8288), such as ``links["next"].url``.

        Relation types are in lower case; see :func:`~twisted_net.http.calls.links.parse_links`.
        """
        found: dict[str, WebLink] = {}
        for link in parse_links(self.headers.get_all("link"), self.url):
            for relation in link.relations:
                found.setdefault(relation, link)
        return found

    @property
    def request(self) -> HttpRequest:
        """The last request, after redirects, with the fields that it was sent with but cookies."""
        fields = RequestFields(twisted_headers(self.trace.headers))
        return HttpRequest(self.method, self.url, fields, self.trace.body)

    @property
    def history(self) -> tuple[Response, ...]:
        """The responses that redirected to this one, oldest first, without their bodies."""
        return self.trace.history


@with_synonyms(RESPONSE_SYNONYMS)
@frozen(slots=True)
class Response(AnyResponse):
    """
    A response with its body.

    :param method: of the last request, after redirects.
    :param url: of the last request, without credentials in its authority.
    :param body: decompressed.
    :param age: seconds since the origin sent or validated it, if it came from the cache.
    :param attempts: requests that this call made over the network; 0 for a fresh response from
        the cache.
    :param elapsed: seconds that the whole call took.
    :param trace: the requests.
    """

    method: str
    url: str
    status: int
    reason: str
    headers: HeaderFields
    body: bytes = field(repr=False)
    attempts: int
    elapsed: float
    age: float | None
    trace: Trace = field(default=NO_TRACE, repr=False, eq=False)

    @property
    @override
    def encoding(self) -> str:
        """
        Python's name of the charset of the body.

        A byte order mark decides before ``Content-Type``, see :attr:`AnyResponse.encoding`.
        """
        return codec_of_mark(self.body, self._stated_encoding())

    def text(self, encoding: str | None = None) -> str:
        """
        Decode the body as text. Bytes that cannot be decoded become U+FFFD.

        A byte order mark is dropped where it decides.

        :param encoding: a charset of the web; None for :attr:`encoding`.
        :raises ValueError: for a charset that is none of these.
        """
        codec = self.encoding if encoding is None else checked_codec(encoding)
        return decode_text(self.body, codec)

    @overload
    def json(self) -> Any: ...  # Any: JSON is of any form

    @overload
    def json(self, type: type[_T]) -> _T: ...

    def json(self, type: Any = Any) -> Any:  # noqa: A002 - msgspec's word; typed by the overloads
        """
        Decode the body as JSON, into *type* if one is passed.

        :param type: any type that msgspec decodes into.
        :raises BodyMismatch: if the body is not JSON or does not fit *type*; its message says
            where.
        :raises TypeError: for a type that msgspec does not know.
        """
        if not self.body:
            raise BodyMismatch(
                f"the body from {redact_url(self.url)} is empty, and no JSON; the status is"
                f" {self.status}"
            )
        try:
            check_numbers(self.body)
            return msgspec.json.decode(self.body.removeprefix(b"\xef\xbb\xbf"), type=type)
        except msgspec.DecodeError as error:
            raise BodyMismatch(
                f"the body from {redact_url(self.url)}{self._other_type()}: {error}"
            ) from None
        except TypeError as error:
            raise TypeError(f"json: {error}") from None
        except RecursionError:
            raise BodyMismatch(
                f"the body from {redact_url(self.url)} is nested too deeply"
            ) from None

    def _other_type(self) -> str:
        """Return the content type in words, where it is stated and is none of JSON."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return f" (of type {printable(kind[:80])})" if kind and "json" not in kind else ""

    def raise_for_status(self) -> Response:
        """
        Return this response if its status is one of success.

        :raises BadStatus: for any status but 200 to 299.
        """
        if self.ok:
            return self
        raise BadStatus(
            self.status,
            self.reason,
            redact_url(self.url),
            self.headers,
            decode_beginning(self.body, self.encoding, EXCERPT),
        )


def checked_codec(encoding: str) -> str:
    """
    Return the codec for a charset that a caller names.

    :raises ValueError: for one that is no charset of the web.
    """
    codec = codec_for(encoding)
    if codec is None:
        raise ValueError(f"encoding: {encoding[:40]!r} is no charset of the web, such as utf-8")
    return codec
