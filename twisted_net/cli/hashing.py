"""``twisted-net hash-password`` and ``hash-token``: hash passwords and tokens for a users file."""

from __future__ import annotations

import secrets
import sys
from getpass import getpass
from typing import Literal

from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import hash_token
from twisted_net.errors import CannotStart

MAX_LINE = 65_536
"""Characters of a password or a token on standard input, which may be ``/dev/zero`` by mistake."""


def print_password_hash(words: list[str]) -> None:
    """Print the hash of a password, from a prompt or the first line of standard input."""
    if words not in ([], ["--argon2"]):
        raise CannotStart(
            "hash-password takes no arguments except --argon2; it prompts for the password"
        )
    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            raise CannotStart("the two passwords differ")
    else:
        password = _first_line()
    try:
        kind: Literal["argon2", "scrypt"] = "argon2" if words else "scrypt"
        sys.stdout.write(hash_password(password, secrets.token_bytes(16), kind) + "\n")
    except ValueError as error:
        raise CannotStart(str(error)) from None
    except ImportError:
        raise CannotStart('argon2 requires an extra: pip install "twisted_net[auth]"') from None


def print_token_hash(words: list[str]) -> None:
    """Print a new token and its hash, or the hash of a token, the first line of standard input."""
    if words:
        raise CannotStart("hash-token takes no arguments; it reads a token or makes one")
    if sys.stdin.isatty():
        token = secrets.token_urlsafe(32)
        sys.stdout.write(f"token   {token}\nSHA-256 {hash_token(token)}\n")
        return
    token = _first_line()
    if not token:
        raise CannotStart("no token on standard input")
    sys.stdout.write(hash_token(token) + "\n")


def _first_line() -> str:
    """
    Return the first line of standard input.

    :raises CannotStart: if it is longer than :data:`MAX_LINE`.
    """
    line = sys.stdin.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise CannotStart(f"the line on standard input has more than {MAX_LINE:,} characters")
    return line.rstrip("\n")
