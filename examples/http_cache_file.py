"""GET a URL with a cache in a file: run ``python examples/http_cache_file.py FILE URL`` twice."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from twisted_net.errors import FetchError
from twisted_net.http import Client, HttpSettings
from twisted_net.http.cache import CacheSettings


async def main(reactor: Any, file: str, url: str) -> None:  # Any: a reactor has many interfaces
    """Get the page, from the file if it is there and fresh; closing writes pending changes."""
    cache = CacheSettings(file=file, default_ttl=300.0, max_entries=10_000, max_bytes=256 * 2**20)
    try:
        async with Client(reactor, HttpSettings(cache=cache)) as client:
            response = await client.get(url)
    except FetchError as error:
        sys.exit(str(error))
    print(response.status, response.text())
    print("from the cache:", response.from_cache)


if __name__ == "__main__":
    react(main, sys.argv[1:])
