"""Call commands of a server and receive its events: ``python examples/tcp_client.py PORT``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from twisted_net.errors import AnswerLost, CallRefused
from twisted_net.tcp import CommandClient, server_endpoint


# Any: a reactor is many interfaces at once.
async def main(reactor: Any, port: str = "8888") -> None:
    """Call some commands at once, then publish a message and receive it."""
    async with CommandClient(reactor, server_endpoint(reactor, "127.0.0.1", int(port))) as client:
        # Sent together, answered in order; each caller gets its own answer.
        calls = [Deferred.fromCoroutine(client.call("ECHO", str(i))) for i in range(3)]
        print([answer["result"] for answer in await gatherResults(calls)])

        try:
            await client.call("NOPE")
        except CallRefused as error:
            print("refused:", error.reason)

        await client.subscribe("chat.*")  # also on later connections
        try:
            await client.call("PUBLISH", "chat.lobby", "hello, all")
        except AnswerLost:
            print("it may or may not have been published; publishing it twice does no harm here")
            await client.call("PUBLISH", "chat.lobby", "hello, all")

        async for event in client.events():
            if event["event"] == "message":
                print(event["topic"], "-", event["message"])
                break


if __name__ == "__main__":
    react(main, sys.argv[1:])
