"""
Callbacks by which OpenSSL asks for pre-shared keys, for which pyOpenSSL has no methods.

They rely on what :func:`~twisted_net.twisted_internals.psk_changes` compares: call that before. A
callback is kept with its context, which must not outlive it. What it raises is printed by cffi,
and ends the handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from twisted_net.twisted_internals import openssl


def ask_for_key(context: SSL.Context, find: Callable[[bytes], bytes | None]) -> None:
    """
    Let a server's context find the key of the identity that a client names.

    :param find: returns the key, or None to end the handshake.
    """
    _, ffi = openssl()

    # Any: made by cffi
    def key_of(ssl: Any, identity: Any, into: Any, size: int) -> int:
        key = find(ffi.string(identity)) if identity else None
        if key is None or len(key) > size:
            return 0
        ffi.memmove(into, key, len(key))
        return len(key)

    _set_callback(context, "server", key_of)


def prove_by_key(context: SSL.Context, identity: bytes, key: bytes) -> None:
    """Let a client's context name an identity, and prove it by a key."""
    _, ffi = openssl()
    named = identity + b"\0"

    # Any: made by cffi
    def prove(ssl: Any, hint: Any, name: Any, name_size: int, into: Any, size: int) -> int:
        if len(named) > name_size or len(key) > size:
            return 0
        ffi.memmove(name, named, len(named))
        ffi.memmove(into, key, len(key))
        return len(key)

    _set_callback(context, "client", prove)


def _set_callback(context: Any, side: str, function: Callable[..., int]) -> None:  # Any: see below
    lib, ffi = openssl()
    setter = getattr(lib, f"SSL_CTX_set_psk_{side}_callback")
    # Attributes that pyOpenSSL's class does not declare.
    context.psk_callback = ffi.callback(ffi.typeof(setter).args[1], function, error=0)
    setter(context._context, context.psk_callback)
