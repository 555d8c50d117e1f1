"""Password hashing: scrypt from the standard library, argon2id with the extra ``auth``."""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import scrypt
from typing import Any, Literal

from twisted_net.config.type_checks import check_arguments

COST = 15
"""
The cost of scrypt as a power of two, with r = 8 and p = 3: 32 MiB and about 0.2 s per verification.
Of the settings of equal strength that OWASP recommends, it is the one with memory for small
machines.
"""

BLOCK, PARALLEL = 8, 3
LENGTH = 32
MAX_PASSWORD = 1024
"""Longest password, in characters. Longer ones are rejected unhashed: hashing takes any length."""

MAX_MEMORY = 256 * 1024 * 1024
"""Limit of the memory for one verification, in bytes; a hash that requires more is invalid."""

_SCRYPT = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)


@check_arguments
def hash_password(
    password: str, salt: bytes, kind: Literal["scrypt", "argon2"] = "scrypt", cost: int = COST
) -> str:
    """
    Return the hash of a password for a users file, with the parameters to verify it (PHC format).

    :param salt: 16 random bytes, never reused.
    :param cost: of scrypt; argon2 uses the second recommendation of RFC 9106 §4, with 64 MiB.
    :raises ValueError: for a password that is empty or too long.
    :raises ImportError: for argon2, if ``argon2-cffi`` is not installed.
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
    Check that passwords can be verified against a hash.

    :raises ValueError: for an unknown format, or parameters out of bounds.
    :raises ImportError: for argon2, if ``argon2-cffi`` is not installed.
    """
    _verifier(hashed)


def settings_of(hashed: str) -> str:
    """Return the kind and the cost of a hash, as the text before its salt."""
    return hashed.rsplit("$", 2)[0]


@check_arguments
def verify(hashed: str, password: str) -> bool:
    """
    Return whether the password is the hashed one, after comparing in constant time.

    It takes up to half a second of CPU time: call it in a thread.

    :raises ValueError: as :func:`check_hash`.
    :raises ImportError: as :func:`check_hash`.
    """
    check = _verifier(hashed)
    return len(password) <= MAX_PASSWORD and check(password)


def _verifier(hashed: str) -> Callable[[str], bool]:
    """Return a function that verifies passwords against this hash."""
    if hashed.startswith("$argon2id$"):
        return _argon2_verifier(hashed)
    match = _SCRYPT.fullmatch(hashed)
    if match is None:
        raise ValueError("not a hash made by twisted-net hash-password")
    cost, block, parallel = (int(figure) for figure in match.groups()[:3])
    salt, digest = _decode(match[4]), _decode(match[5])
    if not (
        1 <= cost <= 24
        and block >= 1
        and parallel >= 1
        and _memory(cost, block, parallel) <= MAX_MEMORY
        and 16 <= len(digest) <= 64
    ):
        raise ValueError("the parameters of this hash are out of bounds")
    return lambda password: hmac.compare_digest(
        _scrypt(password, salt, cost, block, parallel, len(digest)), digest
    )


def _argon2_verifier(hashed: str) -> Callable[[str], bool]:
    hasher = _argon2()
    import argon2.exceptions

    try:
        parameters = argon2.extract_parameters(hashed)
    except argon2.exceptions.InvalidHashError:
        raise ValueError("not a hash made by twisted-net hash-password") from None
    if parameters.memory_cost * 1024 > MAX_MEMORY or parameters.time_cost > 64:
        raise ValueError("the parameters of this hash are out of bounds")

    def check(password: str) -> bool:
        try:
            verified: bool = hasher.verify(hashed, password)
            return verified
        except argon2.exceptions.VerificationError:
            return False

    return check


def _argon2() -> Any:  # Any: an extra, which may not be installed
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
        # OpenSSL's default of 32 MiB is slightly less than COST requires.
        maxmem=_memory(cost, block, parallel) + 1024 * 1024,
        dklen=length,
    )


def _memory(cost: int, block: int, parallel: int) -> int:
    """Return the memory that scrypt uses, in bytes (RFC 7914 §2)."""
    return 128 * block * ((1 << cost) + parallel)


def _encode(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))
