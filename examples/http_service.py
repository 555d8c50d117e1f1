"""Use a service with a token and pages: ``python examples/http_service.py BASE_URL TOKEN``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.task import react

from twisted_net.errors import FetchError
from twisted_net.http import BearerToken, Client, Response


async def pages(client: Client, url: str) -> AsyncIterator[Response]:
    """Iterate over a list that is in several pages, each with a link to the next one."""
    while True:
        page = (await client.get(url)).raise_for_status()
        yield page
        if "next" not in page.links:
            return
        url = page.links["next"].url


async def main(reactor: Any, base_url: str, token: str) -> None:  # Any: of many interfaces
    try:
        async with Client(
            reactor, base_url=base_url, auth=BearerToken(token), params={"lang": "en"}, cookies=True
        ) as client:
            await client.post("login", data={"remember": True})
            async for page in pages(client, "items?page=1"):
                print(page.json())
            sent = await client.post("photos", files={"photo": ("a.txt", b"not a photo")})
            print(sent.status, sent.request.headers["content-type"].partition(";")[0])
    except FetchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    react(main, sys.argv[1:])
