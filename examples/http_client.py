"""GET a URL twice, the second time from the cache: ``python examples/http_client.py URL``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from twisted_net.errors import FetchError
from twisted_net.http import Client


async def main(reactor: Any, url: str) -> None:  # Any: a reactor has many interfaces
    try:
        async with Client(reactor) as client:
            response = await client.get(url, default_ttl=300.0)
            print(response.status, response.text())
            again = await client.get(url, default_ttl=300.0)
            print("second answer from the cache:", again.from_cache)
    except FetchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    react(main, sys.argv[1:])
