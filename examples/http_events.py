"""Show the events of a server, until it ends: ``python examples/http_events.py URL``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from twisted_net.errors import FetchError
from twisted_net.http import Client, Timeouts


async def main(reactor: Any, url: str) -> None:  # Any: a reactor has many interfaces
    headers = {"Accept": "text/event-stream"}
    # As long as the server says something every minute.
    timeout = Timeouts(total=None, silence=60.0)
    try:
        async with (
            Client(reactor) as client,
            client.stream("GET", url, headers=headers, timeout=timeout) as response,
        ):
            async for event in response.events():
                print(event.type, event.data)
    except FetchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    react(main, sys.argv[1:])
