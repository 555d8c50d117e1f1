"""Keep treq's calls over this package's agent: ``python examples/treq_client.py URL``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from twisted_net.errors import FetchError
from twisted_net.http import HTTPAgent
from twisted_net.http.treq import HTTPClient


async def main(reactor: Any, url: str) -> None:  # Any: a reactor has many interfaces
    agent = HTTPAgent(reactor)
    client = HTTPClient(agent)
    try:
        for _ in range(2):
            response = await client.get(url, params={"page": "2"}, timeout=10, reactor=reactor)
            print(response.code, await response.text())
        posted = await client.post(url, json={"name": "ann"})
        print(posted.code, posted.request.absoluteURI.decode())
    except FetchError as error:
        sys.exit(str(error))
    finally:
        await agent.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
