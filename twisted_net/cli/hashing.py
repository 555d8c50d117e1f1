"""The subcommands ``hash-password`` and ``hash-token``: print what goes into a users file."""

from __future__ import annotations

import secrets
import sys
from getpass import getpass
from typing import Literal

from twisted_net.auth.passwords import hash_password
from twisted_net.auth.users import hash_token
from twisted_net.errors import CannotStart


def print_password_hash(words: list[str]) -> None:
    """Print the hash of a password, which is asked for twice, or is the first line of a pipe."""
    if words not in ([], ["--argon2"]):
        raise CannotStart("hash-password takes no words but --argon2; the password is asked for")
    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            raise CannotStart("the two passwords differ")
    else:
        password = sys.stdin.readline().rstrip("\n")
    try:
        kind: Literal["argon2", "scrypt"] = "argon2" if words else "scrypt"
        sys.stdout.write(hash_password(password, secrets.token_bytes(16), kind) + "\n")
    except ValueError as error:
        raise CannotStart(str(error)) from None
    except ImportError:
        raise CannotStart("argon2 needs twisted_net[auth]") from None


def print_token_hash(words: list[str]) -> None:
    """Make a token and print it with its hash, or print the hash of the first line of a pipe."""
    if words:
        raise CannotStart("hash-token takes no words; it makes a token, or reads one from a pipe")
    if sys.stdin.isatty():
        token = secrets.token_urlsafe(32)
        sys.stdout.write(f"token   {token}\nSHA-256 {hash_token(token)}\n")
        return
    token = sys.stdin.readline().rstrip("\n")
    if not token:
        raise CannotStart("there is no token on the standard input")
    sys.stdout.write(hash_token(token) + "\n")
