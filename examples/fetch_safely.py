"""
Fetch URLs from untrusted sources: ``python examples/fetch_safely.py URL ...``.

The policy allows public addresses only, at ports 80 and 443.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from twisted_net.errors import FetchError
from twisted_net.http import Client, EgressPolicy, HttpSettings

SETTINGS = HttpSettings(timeout=10.0, max_body=256 * 1024, max_redirects=3)


async def main(reactor: Any, *urls: str) -> None:  # Any: a reactor has many interfaces
    policy = EgressPolicy(deny=("*.internal.example",))
    async with Client(reactor, SETTINGS, egress=policy) as client:
        for url, result in zip(urls, await client.gather(urls, limit=5), strict=True):
            if isinstance(result, FetchError):
                print(f"{url}: {result.code}: {result}")
            else:
                print(f"{url}: {result.status}, {len(result.body)} bytes")


if __name__ == "__main__":
    react(main, sys.argv[1:])
