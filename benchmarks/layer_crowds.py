"""What attackers send within TLS and WebSockets: small records, small frames, and KeyUpdates."""

from __future__ import annotations

import hmac
import os
import select
import socket
import ssl
import tempfile
from collections.abc import Iterator
from itertools import chain, count, cycle, islice, repeat
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HANDSHAKE_TIME = 10.0
"""Seconds in which a server must answer a handshake."""

RECORDS_PER_PIECE = 2800
"""Records that are sent in one piece: some 64 KB, which a server may read at once."""

_HANDSHAKE, _DATA = b"\x16", b"\x17"
_KEY_UPDATE = b"\x18\x00\x00\x01\x01"  # that asks for one of the server's (RFC 8446 §4.6.3)


class Records:
    """
    The records that a client of TLS 1.3 sends after its handshake, made by hand (RFC 8446 §5.2).

    No library sends KeyUpdates one after the other.

    :param secret: the client's first secret for its data, of 32 bytes or of 48.
    """

    def __init__(self, secret: bytes) -> None:
        self._hash = "sha256" if len(secret) == 32 else "sha384"
        self._use(secret)

    def data(self, content: bytes) -> bytes:
        """Return a record of data."""
        return self._encode(content, _DATA)

    def key_update(self) -> bytes:
        """Return a KeyUpdate; what follows has the next keys."""
        record = self._encode(_KEY_UPDATE, _HANDSHAKE)
        self._use(self._expand(self._secret, b"traffic upd", len(self._secret)))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(self._expand(secret, b"key", 16 if len(secret) == 32 else 32))
        self._iv = int.from_bytes(self._expand(secret, b"iv", 12))
        self._number = 0

    def _expand(self, secret: bytes, label: bytes, size: int) -> bytes:
        """HKDF-Expand-Label with no context (RFC 8446 §7.1), of one block (RFC 5869 §2.3)."""
        label = b"tls13 " + label
        info = size.to_bytes(2) + bytes((len(label),)) + label + b"\0"
        return hmac.digest(secret, info + b"\1", self._hash)[:size]

    def _encode(self, content: bytes, kind: bytes) -> bytes:
        head = b"\x17\x03\x03" + (len(content) + 1 + 16).to_bytes(2)
        nonce = (self._iv ^ self._number).to_bytes(12)
        self._number += 1
        return head + self._cipher.encrypt(nonce, content + kind, head)


def shake_hands(sock: socket.socket) -> Records:
    """
    Shake hands as a client of TLS 1.3 that believes any certificate.

    :param sock: connected, or about to be; it does not block afterwards.
    """
    sock.settimeout(HANDSHAKE_TIME)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll(HANDSHAKE_TIME * 1000)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "keys")
        context.keylog_filename = str(log)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            sock.sendall(outgoing.read())
            if not done:
                data = sock.recv(65_536)
                if not data:
                    raise ConnectionError("the server has closed the connection")
                incoming.write(data)
        lines = [line.split() for line in log.read_text().splitlines()]
    sock.setblocking(False)
    (secret,) = (bytes.fromhex(line[2]) for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0")
    return Records(secret)


def single_byte_records(sock: socket.socket) -> Iterator[bytes]:
    """Shake hands, then send lines, each byte in a record of its own."""
    records = shake_hands(sock)
    return _pieces(records.data(_SHORT[i : i + 1]) for i in cycle(range(len(_SHORT))))


_SHORT = b"ECHO hello world\n"


def key_updates(sock: socket.socket) -> Iterator[bytes]:
    """Shake hands, then update the keys, again and again, and send no data."""
    records = shake_hands(sock)
    return _pieces(records.key_update() for _ in count())


def _pieces(records: Iterator[bytes]) -> Iterator[bytes]:
    """Join records to pieces."""
    while True:
        yield b"".join(islice(records, RECORDS_PER_PIECE))


def tiny_frames(number: int) -> Iterator[bytes]:
    """Open a WebSocket; send frames of six bytes: pongs without content that answer no ping."""
    pong = b"\x8a\x80" + os.urandom(4)
    return chain([_UPGRADE], repeat(pong * 4096))


_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
