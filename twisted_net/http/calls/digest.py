"""Digest authentication (RFC 7616): parses challenges, and computes their answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import md5, sha256
from urllib.parse import quote

from attrs import define, frozen

from twisted_net.http.fields import TCHAR, unescape

MAX_CHALLENGES = 16
"""Challenges of one response that are read; usual are one or two."""

MAX_LENGTH = 8192
"""Characters of one ``WWW-Authenticate`` line that are read."""

_HASHES = {"MD5": md5, "SHA-256": sha256}

# A scheme, or a parameter: an equals sign tells them apart. What fits neither, such as the one
# long word of other schemes, is skipped up to the next comma or space.
_ITEM = re.compile(
    rf'({TCHAR}++)(?:[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|({TCHAR}++)))?+[^\s,]*+[\s,]*+'
    r"|[^\s,]++[\s,]*+|[\s,]++",
    re.DOTALL,
)


@frozen
class DigestChallenge:
    """
    A challenge that can be answered (RFC 7616 §3.3).

    :param algorithm: as the server spells it; None for none, which is MD5.
    :param opaque: returned as it is; None for none.
    :param qop: whether the server offers ``auth``; without it the answer is that of RFC 2069,
        which old devices want.
    :param userhash: whether the user name is to be hashed.
    """

    realm: str
    nonce: str
    algorithm: str | None = None
    opaque: str | None = None
    qop: bool = True
    userhash: bool = False

    @property
    def hash_name(self) -> str:
        """The name of the hash function, in capitals."""
        return (self.algorithm or "MD5").upper().removesuffix("-SESS")

    @property
    def per_session(self) -> bool:
        """Whether the key is of this session, by a ``-sess`` algorithm."""
        return (self.algorithm or "").upper().endswith("-SESS")


def parse_digest_challenge(values: Iterable[str]) -> DigestChallenge | None:
    """
    Return the first challenge that can be answered, as servers put the best one first (§3.7).

    It takes time linear in the length, whatever the values are.

    :param values: the lines of ``WWW-Authenticate``.
    :return: None if there is none with MD5 or SHA-256, with or without ``-sess``, for the quality
        of protection ``auth``.
    """
    for scheme, parameters in _challenges(values):
        if scheme != "digest" or "realm" not in parameters or "nonce" not in parameters:
            continue
        qops = [qop.strip().lower() for qop in parameters.get("qop", "").split(",")]
        challenge = DigestChallenge(
            realm=parameters["realm"],
            nonce=parameters["nonce"],
            algorithm=parameters.get("algorithm"),
            opaque=parameters.get("opaque"),
            qop="auth" in qops,
            userhash=parameters.get("userhash", "").lower() == "true",
        )
        if challenge.hash_name in _HASHES and (challenge.qop or "qop" not in parameters):
            return challenge
    return None


def _challenges(values: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    """Return the challenges: scheme in lower case, and parameters by name in lower case."""
    found: list[tuple[str, dict[str, str]]] = []
    for value in values:
        if len(value) > MAX_LENGTH:
            continue
        for match in _ITEM.finditer(value):
            name, quoted, token = match.groups()
            if quoted is None and token is None:
                if name is not None and len(found) < MAX_CHALLENGES:
                    found.append((name.lower(), {}))
            elif found:
                text = token if quoted is None else unescape(quoted)
                found[-1][1].setdefault(name.lower(), text)
    return found


@define
class DigestSession:
    """
    The answers to one challenge: its nonce is used again, with a count (RFC 7616 §3.4).

    :param cnonce: a random word, which the server cannot choose.
    :ivar count: answers so far.
    """

    challenge: DigestChallenge
    user: str
    password: str
    cnonce: str
    count: int = 0

    def authorization(self, method: str, uri: str) -> str:
        """
        Return the value of ``Authorization`` for the next request, to be sent as Latin-1.

        :param uri: path and query, as in the request line.
        """
        self.count += 1
        challenge, number = self.challenge, f"{self.count:08x}"
        key = self._hash(f"{_wire(self.user)}:{challenge.realm}:{_wire(self.password)}")
        if challenge.per_session:
            key = self._hash(f"{key}:{challenge.nonce}:{self.cnonce}")
        subject = self._hash(f"{method}:{uri}")
        quality = [number, self.cnonce, "auth"] if challenge.qop else []
        words = [key, challenge.nonce, *quality, subject]
        fields = [
            *self._name(),
            f"realm={_quoted(challenge.realm)}",
            f"nonce={_quoted(challenge.nonce)}",
            f"uri={_quoted(uri)}",
            f'response="{self._hash(":".join(words))}"',
        ]
        if challenge.algorithm is not None:
            fields.append(f"algorithm={challenge.algorithm}")
        if challenge.opaque is not None:
            fields.append(f"opaque={_quoted(challenge.opaque)}")
        if challenge.qop:
            fields += ["qop=auth", f"nc={number}"]
        if challenge.qop or challenge.per_session:
            fields.append(f'cnonce="{self.cnonce}"')
        return f"Digest {', '.join(fields)}"

    def _name(self) -> list[str]:
        if self.challenge.userhash:
            name = self._hash(f"{_wire(self.user)}:{self.challenge.realm}")
            return [f'username="{name}"', "userhash=true"]
        if self.user.isascii():
            return [f"username={_quoted(self.user)}"]
        # RFC 7616 §3.4: in the notation of RFC 5987, as a quoted text is ASCII.
        return [f"username*=UTF-8''{quote(self.user, safe='')}"]

    def _hash(self, text: str) -> str:
        # latin-1: what the server sent is hashed as it was on the wire.
        function = _HASHES[self.challenge.hash_name]
        return function(text.encode("latin-1"), usedforsecurity=False).hexdigest()


def _wire(text: str) -> str:
    """Return a text as it is on the wire in UTF-8, read as Latin-1 like all fields."""
    return text.encode().decode("latin-1")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
