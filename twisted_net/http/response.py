"""HTTP response: status, header fields and body in memory, decoded as text or JSON."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec
from attrs import field, frozen

from twisted_net.http.errors import BadStatus, BodyMismatch
from twisted_net.http.fields import HeaderFields
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
class Response:
    """
    A response with its body.

    :param method: of the last request, after redirects.
    :param url: of the last request, without credentials in its authority.
    :param body: decompressed.
    :param age: seconds since the origin sent or validated it, if it came from the cache.
    :param attempts: requests that this call made over the network; 0 for a fresh response from
        the cache.
    :param elapsed: seconds that the whole call took.
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

    @property
    def from_cache(self) -> bool:
        """Whether the body came from the cache, validated by its server or not."""
        return self.age is not None

    @property
    def ok(self) -> bool:
        """Whether the status is one of success, 200 to 299."""
        return 200 <= self.status < 300

    def text(self) -> str:
        """
        Decode the body by the charset that ``Content-Type`` names, or else as UTF-8.

        Charsets are those of the web, see :data:`~twisted_net.net.charsets.CODECS`. It is looked
        for in the first :data:`MAX_PARAMETERS` parameters. A byte order mark decides before it,
        and is dropped. Bytes that cannot be decoded become U+FFFD.
        """
        return decode_text(self.body, self.codec)

    @property
    def codec(self) -> str:
        """Python's name of the charset of :meth:`text`; a byte order mark decides before all."""
        return codec_of_mark(self.body, self._stated_codec())

    def _stated_codec(self) -> str:
        # The last of them is what is left, and no parameter.
        parameters = self.headers.get("content-type", "").split(";", MAX_PARAMETERS + 1)
        for parameter in parameters[1 : MAX_PARAMETERS + 1]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset":
                return codec_for(value.strip().strip("\"'")) or "utf_8"
        return "utf_8"

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
        """
        try:
            check_numbers(self.body)
            return msgspec.json.decode(self.body.removeprefix(b"\xef\xbb\xbf"), type=type)
        except msgspec.DecodeError as error:
            raise BodyMismatch(f"the body from {redact_url(self.url)}: {error}") from None
        except RecursionError:
            raise BodyMismatch(
                f"the body from {redact_url(self.url)} is nested too deeply"
            ) from None

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
            decode_beginning(self.body, self.codec, EXCERPT),
        )
