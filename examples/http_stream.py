"""Download a URL of any size into a file: ``python examples/http_stream.py URL FILE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from twisted_net.errors import FetchError
from twisted_net.http import Client


async def main(reactor: Any, url: str, path: str) -> None:  # Any: a reactor has many interfaces
    size = 0
    try:
        async with (
            Client(reactor) as client,
            client.stream("GET", url, max_body=2**40, timeout=3600.0) as response,
        ):
            with Path(path).open("wb") as file:
                async for piece in response:
                    size += file.write(piece)
    except FetchError as error:
        sys.exit(f"after {size} bytes: {error}")
    print(response.status, size)


if __name__ == "__main__":
    react(main, sys.argv[1:])
