"""Changes a message a little, as often as wanted."""

from __future__ import annotations

import random

PIECES = (
    *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"0", b"5", b"f", b"+", b"-", b"x"),
    *(
        b"\x00",
        b"\x0b",
        b"\x7f",
        b"\xff",
        b"\r\n\r\n",
        b"\r\n ",
        b"0\r\n\r\n",
        b"Content-Length: 5\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"HTTP/1.1 100 C\r\n\r\n"),
)


def mutated(message: bytes, seed: int) -> bytes:
    """Return a message with one to three changes."""
    chance = random.Random(seed)
    changed = bytearray(message)
    for _ in range(chance.randint(1, 3)):
        i = chance.randint(0, len(changed))
        j = min(i + chance.choice((0, 0, 1, 1, 2, 5, 20)), len(changed))
        kind = chance.randrange(5)
        if kind == 0:
            del changed[i:j]
        elif kind == 1:
            changed[i:i] = changed[i:j]
        elif kind == 2:
            changed[i:j] = bytes([chance.randrange(256)])
        else:
            changed[i : i + kind - 3] = chance.choice(PIECES)
    return bytes(changed)
