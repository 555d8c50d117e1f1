"""Hashes of passwords: scrypt, which Python has, and argon2id with the extra ``auth``."""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import scrypt
from typing import Any, Literal

COST = 15
"""
scrypt's cost, as a power of two, with r = 8 and p = 3: 32 MiB and about 0.2 s a check. Among the
settings of equal strength that OWASP recommends it is the one that a small machine can bear.
"""

BLOCK, PARALLEL = 8, 3
LENGTH = 32
MAX_PASSWORD = 1024
"""Characters of a password; a longer one is wrong, unread: argon2 and scrypt take any length."""

MAX_MEMORY = 256 * 1024 * 1024
"""Bytes that a check may take; a hash that asks for more is refused."""

_SCRYPT = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)


def hash_password(
    password: str, salt: bytes, kind: Literal["scrypt", "argon2"] = "scrypt", cost: int = COST
) -> str:
    """
    Give the hash of a password, as a users file holds it; it names all that a check needs.

    :param salt: 16 random bytes, used for nothing else.
    :param cost: of scrypt; argon2 takes RFC 9106's second recommendation, of 64 MiB.
    :raises ValueError: for a password that is empty or too long.
    :raises ImportError: for argon2 where ``argon2-cffi`` is not installed.
    """
    if not 0 < len(password) <= MAX_PASSWORD:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD} characters")
    if kind == "argon2":
        hashed: str = _argon2().hash(password, salt=salt)
        return hashed
    digest = _scrypt(password, salt, cost, BLOCK, PARALLEL, LENGTH)
    return f"$scrypt$ln={cost},r={BLOCK},p={PARALLEL}${_encode(salt)}${_encode(digest)}"


def check_hash(hashed: str) -> None:
    """
    Refuse a hash that no password could be checked against.

    :raises ValueError: for one of another form, or that asks for too much memory.
    :raises ImportError: for one of argon2 where ``argon2-cffi`` is not installed.
    """
    _check_with(hashed)


def verify(hashed: str, password: str) -> bool:
    """
    Say whether this is the password; it takes its time, so call it in a thread.

    The comparison takes equally long wherever the two differ.

    :raises ValueError: as :func:`check_hash` does, as :exc:`ImportError`.
    """
    check = _check_with(hashed)
    return len(password) <= MAX_PASSWORD and check(password)


def _check_with(hashed: str) -> Callable[[str], bool]:
    """Give the function that checks a password against this hash."""
    if hashed.startswith("$argon2id$"):
        return _check_with_argon2(hashed)
    match = _SCRYPT.fullmatch(hashed)
    if match is None:
        raise ValueError("this is no hash that twisted-net hash-password made")
    cost, block, parallel = (int(figure) for figure in match.groups()[:3])
    salt, digest = _decode(match[4]), _decode(match[5])
    if not (
        1 <= cost <= 24
        and block >= 1
        and parallel >= 1
        and _memory(cost, block, parallel) <= MAX_MEMORY
        and 16 <= len(digest) <= 64
    ):
        raise ValueError("the figures in this hash are out of bounds")
    return lambda password: hmac.compare_digest(
        _scrypt(password, salt, cost, block, parallel, len(digest)), digest
    )


def _check_with_argon2(hashed: str) -> Callable[[str], bool]:
    hasher = _argon2()
    import argon2.exceptions

    try:
        parameters = argon2.extract_parameters(hashed)
    except argon2.exceptions.InvalidHashError:
        raise ValueError("this is no hash that twisted-net hash-password made") from None
    if parameters.memory_cost * 1024 > MAX_MEMORY or parameters.time_cost > 64:
        raise ValueError("the figures in this hash are out of bounds")

    def check(password: str) -> bool:
        try:
            verified: bool = hasher.verify(hashed, password)
            return verified
        except argon2.exceptions.VerificationError:
            return False

    return check


def _argon2() -> Any:  # Any: argon2 is an extra, which need not be there
    import argon2
    from argon2.profiles import RFC_9106_LOW_MEMORY

    return argon2.PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


def _scrypt(password: str, salt: bytes, cost: int, block: int, parallel: int, length: int) -> bytes:
    return scrypt(
        password.encode(),
        salt=salt,
        n=1 << cost,
        r=block,
        p=parallel,
        # OpenSSL's own bound of 32 MiB is just below what the usual cost needs.
        maxmem=_memory(cost, block, parallel) + 1024 * 1024,
        dklen=length,
    )


def _memory(cost: int, block: int, parallel: int) -> int:
    """Bytes that scrypt takes (RFC 7914 §2)."""
    return 128 * block * ((1 << cost) + parallel)


def _encode(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))
