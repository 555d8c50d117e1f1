"""Authentication of requests: user and password, bearer tokens, Digest, or a function."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterable

from attrs import field, frozen

from twisted_net.config.type_checks import check_arguments, shown
from twisted_net.http.calls.digest import DigestSession, parse_digest_challenge
from twisted_net.http.calls.http_request import HttpRequest, encoded_text
from twisted_net.http.urls import Origin, parse_target
from twisted_net.net.bounded_table import BoundedTable

MAX_SESSIONS = 64
"""Origins whose last challenge a :class:`DigestAuth` keeps."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@check_arguments
@frozen
class BearerToken:
    """
    A token for ``auth=``, sent as ``Authorization: Bearer`` (RFC 6750).

    :param token: a secret, which ``repr`` does not show.
    :raises ValueError: for an empty token, and for characters that no token has.
    """

    token: str = field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not self.token or not self.token.isascii() or not self.token.isprintable():
            raise ValueError("BearerToken: token must be one word of visible ASCII characters")
        if " " in self.token:
            raise ValueError("BearerToken: token must have no space; leave the word Bearer out")


@check_arguments
class DigestAuth:
    """
    User and password for ``auth=``, which are never sent: Digest authentication (RFC 7616).

    The first request to an origin is answered 401 with a challenge, and is sent again with the
    answer to it. Those that follow have an answer already, so keep one ``DigestAuth`` for many
    calls, best as the ``auth`` of a client. Where the server sends another challenge, its request
    is sent again once; a request whose body is sent only once gets the 401 as its response.

    Hashes are MD5 and SHA-256, with and without ``-sess``; the quality of protection is ``auth``.

    :param user: user name.
    :param password: a secret.
    :param cnonce: returns a random word for each challenge.
    :raises ValueError: for control characters and surrogates in them.
    """

    def __init__(
        self,
        user: str,
        password: str,
        *,
        cnonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        for word, name in ((user, "user"), (password, "password")):
            encoded_text(word, f"DigestAuth: {name}")
            if _CONTROL.search(word) is not None:
                # Often the end of the line that a password was read from.
                raise ValueError(
                    f"DigestAuth: {name} must have no line break and no other control character"
                )
        self._user = user
        self._password = password
        self._cnonce = cnonce
        self._sessions: BoundedTable[Origin, DigestSession] = BoundedTable(MAX_SESSIONS)

    def __repr__(self) -> str:
        return f"DigestAuth({self._user!r})"

    def authorize(self, request: HttpRequest) -> None:
        """Add the answer to the last challenge of the request's origin, if there was one."""
        target = parse_target(request.url)
        session = self._sessions.get(target.origin)
        if session is not None:
            self._sessions.move_to_end(target.origin)
            value = session.authorization(request.method, target.path)
            request.headers.set_bytes("Authorization", value.encode("latin-1"))

    def challenged(self, url: str, values: Iterable[str]) -> bool:
        """
        Take the challenges of a response with status 401; return whether one can be answered.

        :param values: the lines of ``WWW-Authenticate``.
        """
        challenge = parse_digest_challenge(values)
        if challenge is None:
            return False
        origin = parse_target(url).origin
        self._sessions[origin] = DigestSession(
            challenge, self._user, self._password, self._cnonce()
        )
        return True


Auth = tuple[str, str] | BearerToken | DigestAuth | Callable[[HttpRequest], object]
"""
What ``auth`` may be.

A function is called with each request to the origin of the call, when it is complete but for its
cookies, and adds what it wants to its headers. It may return an awaitable, which is awaited.
"""


def check_auth(auth: object, label: str) -> None:
    """
    Check a value for ``auth``.

    :param label: of the argument, for messages.
    :raises TypeError: for anything that is no :data:`Auth`, and None.
    :raises ValueError: for a colon in the user name, and for control characters (RFC 7617 §2).
    """
    if auth is None or isinstance(auth, BearerToken | DigestAuth):
        return
    if isinstance(auth, tuple):
        if len(auth) != 2 or not all(isinstance(word, str) for word in auth):
            raise TypeError(f"{label} must be a user name and a password, both text")
        if ":" in auth[0]:
            raise ValueError(f"{label}: the user name must have no colon (RFC 7617)")
        if _CONTROL.search("".join(auth)) is not None:
            # Often the end of the line that a password was read from.
            raise ValueError(
                f"{label}: user name and password must have no line break and no other control"
                " character (RFC 7617)"
            )
        for word in auth:
            encoded_text(word, f"{label}: user name or password")
        return
    if isinstance(auth, type) or not callable(auth):
        raise TypeError(
            f"{label} must be (user, password), BearerToken(token), DigestAuth(user, password) or a"
            f" function that takes the request, not {shown(auth)}"
        )


def fixed_authorization(auth: Auth) -> bytes | None:
    """Return the value of ``Authorization`` that is the same for all requests, if there is one."""
    if isinstance(auth, tuple):
        return b"Basic " + base64.b64encode(":".join(auth).encode())
    return f"Bearer {auth.token}".encode() if isinstance(auth, BearerToken) else None
