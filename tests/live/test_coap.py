"""CoAP over real sockets: our client and our server, and the service as a process."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.live.processes import Running, command_line
from tests.patience import until
from tests.ports import free_port
from twisted_net.coap.client import CoapClient
from twisted_net.coap.client_response import CoapResponse, Observation
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message, parse_message
from twisted_net.coap.errors import (
    CoapClientClosed,
    CoapHostNotFound,
    CoapHostUnreachable,
    CoapTimeout,
    InvalidCoapURI,
    ObservationRefused,
    ResetByPeer,
    TransferFailed,
    UnexpectedCode,
)
from twisted_net.coap.port import listen_coap
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapClientSettings, CoapLimits
from twisted_net.commands.standard import standard_commands
from twisted_net.net.addresses import Source
from twisted_net.tcp.client import CommandClient, server_endpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "coap_device.py"
# Waits a tenth as long as RFC 7252 has it, so that what is lost is soon sent again.
QUICK = CoapClientSettings(ack_timeout=0.1, nstart=4)


@pytest.fixture
def reactor(patient_reactor: Any) -> Any:  # Any: reactors have no one type
    """The reactor of these tests: none of their short timeouts is due for a busy machine."""
    return patient_reactor


class Lossy(DatagramProtocol):
    """A way to the server that loses what it is told to, both ways."""

    noisy = False

    def __init__(self, server: Source, lost: list[int]) -> None:
        self._server = server
        self._lost = lost
        self._client: Source | None = None
        self._count = 0

    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        assert self.transport is not None
        if addr != self._server:
            self._client = addr
        self._count += 1
        to = self._client if addr == self._server else self._server
        if self._count not in self._lost and to is not None:
            self.transport.write(datagram, to)


class Strange(DatagramProtocol):
    """A server that answers each request as it is told, or is silent."""

    noisy = False

    def __init__(self, *answers: CoapMessage) -> None:
        self._answers = list(answers)
        self.asked: list[CoapMessage] = []

    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        assert self.transport is not None
        question = parse_message(datagram)
        self.asked.append(question)
        if not self._answers or question.code == 0:
            return
        answer = self._answers.pop(0)
        answer.message_id = question.message_id
        if answer.type != Type.RST:
            answer.token = question.token
        self.transport.write(encode_message(answer), addr)


class Served:
    """A server and a client; leave them with ``async with``."""

    def __init__(
        self,
        reactor: Any,  # Any: reactors have no one type
        limits: CoapLimits | None = None,
        settings: CoapClientSettings = QUICK,
        interface: str = "127.0.0.1",
    ) -> None:
        self.reactor = reactor
        self.runs: list[str] = []
        self.interface = interface
        commands = standard_commands()
        commands.command("NOTE")(self._note)
        commands.command("SLEEP")(self._sleep)
        commands.command("BLOCK", blocking=True, safe=True)(lambda: "blocked")
        commands.command("BIG", safe=True)(self._big)
        commands.command("REPEAT", safe=True)(self._repeat)
        self.server = CoapServer(reactor, commands, limits or CoapLimits(refresh_interval=0.05))
        self.client = CoapClient(reactor, settings)

    async def __aenter__(self) -> Served:
        self.port = listen_coap(self.reactor, self.server, 0, self.interface)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.close()
        await self.server.drain(1)
        stopped = self.port.stopListening()
        assert stopped is not None
        await stopped

    def uri(self, path: str, port: int | None = None) -> str:
        """Return the URI of a path."""
        host = f"[{self.interface}]" if ":" in self.interface else self.interface
        return f"coap://{host}:{port or self.port.getHost().port}/{path}"

    def _note(self, text: str) -> str:
        self.runs.append(text)
        return text

    async def _sleep(self, seconds: float) -> str:
        await deferLater(self.reactor, seconds)
        self.runs.append("slept")
        return "slept"

    def _repeat(self, text: str) -> str:
        return text * 1000

    def _big(self) -> str:
        self.runs.append("big")
        return "big" * 10_000


async def strange(
    reactor: Any, server: Strange, method: int = Code.GET, payload: bytes = b"a" * 2000
) -> CoapResponse:
    """Ask a strange server, and close everything."""
    port = reactor.listenUDP(0, server, interface="127.0.0.1")
    try:
        async with CoapClient(
            reactor, CoapClientSettings(ack_timeout=0.1, max_retransmit=2)
        ) as client:
            return await client.request(
                method, f"coap://127.0.0.1:{port.getHost().port}/x", payload
            )
    finally:
        await port.stopListening()


async def test_requests(reactor: Any) -> None:
    """Commands answer over a real socket: at once, after a while, from a thread."""
    async with Served(reactor) as served:
        client = served.client
        assert (await client.get(served.uri("ping"))).text == "PONG"
        echo = await client.post(served.uri("echo"), b'a "b c"', content_format=0)
        assert (echo.code, echo.text, echo.content_format) == (Code.CHANGED, "a b c", 0)
        stats = await client.get(served.uri("stats"), accept=50)
        assert stats.json()["command"] == "STATS"
        assert stats.raise_for_code().max_age == 0
        assert (await client.post(served.uri("sleep"), b"0.3")).text == "slept"
        assert (await client.get(served.uri("block"))).text == "blocked"
        assert (await client.get(served.uri("help?echo"))).ok
        missing = await client.get(served.uri("nope/x"))
        assert (missing.code, missing.ok, missing.max_age) == (Code.NOT_FOUND, False, 60)
        with pytest.raises(UnexpectedCode, match=re.escape("4.04 Not Found no resource /nope/x")):
            missing.raise_for_code()


async def test_ipv6_and_names(reactor: Any) -> None:
    """IPv6 addresses and names are reached."""
    async with Served(reactor, interface="::1") as served:
        assert (await served.client.get(served.uri("ping"))).text == "PONG"
    async with Served(reactor) as served:
        uri = served.uri("ping").replace("127.0.0.1", "localhost")
        assert (await served.client.get(uri)).text == "PONG"
        with pytest.raises(CoapHostNotFound):
            await served.client.get("coap://host.invalid/ping")


async def test_blocks(reactor: Any) -> None:
    """A hundred kilobytes go there and back in blocks, and the command runs once."""
    async with Served(reactor) as served:
        body = bytes(65 + number % 26 for number in range(100_000))
        assert (await served.client.post(served.uri("note"), body)).payload == body
        assert served.runs == [body.decode()]
        served.runs.clear()
        assert len((await served.client.get(served.uri("big"))).payload) == 30_000
        assert served.runs == ["big"]


async def test_body_too_large(reactor: Any) -> None:
    """What the server does not take is 4.13; what the client does not take fails."""
    limits = CoapLimits(max_body=5000)
    small = CoapClientSettings(max_body=5000, block_size=512)
    async with Served(reactor, limits, small) as served:
        refused = await served.client.post(served.uri("note"), b"a" * 5001)
        assert refused.code == Code.REQUEST_ENTITY_TOO_LARGE
        with pytest.raises(TransferFailed):
            await served.client.get(served.uri("big"))


async def test_long_datagram(reactor: Any) -> None:
    """What does not fit into a datagram of the server's is refused, and never run in part."""
    async with Served(reactor, CoapLimits(max_datagram=600)) as served:
        answer = await served.client.post(served.uri("note"), b"a" * 1000)
        assert (answer.code, served.runs) == (Code.REQUEST_ENTITY_TOO_LARGE, [])


async def test_loss(reactor: Any) -> None:
    """What is lost on either way is sent again, and the command runs once."""
    async with Served(reactor) as served:
        for lost in ([1], [2], [1, 3], [2, 4], [1, 4, 6]):
            host = served.port.getHost()
            way = reactor.listenUDP(0, Lossy((host.host, host.port), lost), interface="127.0.0.1")
            served.runs.clear()
            answer = await served.client.post(served.uri("note", way.getHost().port), b"x")
            assert (answer.text, served.runs) == ("x", ["x"])
            await way.stopListening()
        assert served.server.layer.counts.duplicates > 0


async def test_many_at_once(reactor: Any) -> None:
    """Calls wait for their turn with one server; each gets its own answer."""
    async with Served(reactor) as served:
        calls = [served.client.get(served.uri(f"echo?{number}")) for number in range(50)]
        answers = await gatherResults(calls)
        assert [answer.text for answer in answers] == [str(number) for number in range(50)]


async def test_observe(reactor: Any) -> None:
    """Figures are observed, until the observation is left; the server then forgets it."""
    async with Served(reactor) as served:
        seen = []
        async with await served.client.observe(served.uri("stats"), accept=50) as states:
            async for state in states:
                seen.append(state.json()["uptime"])
                if len(seen) == 3:
                    break
        assert seen == sorted(seen)
        assert len(set(seen)) == 3
        await until(reactor, lambda: served.server.observers == 0)


async def test_observe_events(reactor: Any) -> None:
    """A broadcast reaches those that observe events, long ones in blocks."""
    async with Served(reactor) as served:
        states = await served.client.observe(served.uri("events"))
        assert (await anext(states)).json() == {}
        waiting = Deferred.fromCoroutine(next_of(states))
        await served.client.post(served.uri("broadcast"), b"a" * 3000)
        assert (await waiting).json()["message"] == "a" * 3000


async def next_of(states: Observation) -> CoapResponse:
    """Return the next state."""
    return await anext(states)


async def test_observe_once(reactor: Any) -> None:
    """What cannot be observed has one state, and is an error then."""
    async with Served(reactor) as served:
        states = await served.client.observe(served.uri("ping"))
        assert (await anext(states)).text == "PONG"
        with pytest.raises(ObservationRefused):
            await anext(states)
        states = await served.client.observe(served.uri("nope"))
        assert [state.code async for state in states] == [Code.NOT_FOUND]


async def test_observe_until_the_server_goes(reactor: Any) -> None:
    """A server that stops says so: the last state is an error."""
    async with Served(reactor) as served:
        states = await served.client.observe(served.uri("events"))
        await served.server.drain(1)
        codes = [state.code async for state in states]
        assert codes == [Code.CONTENT, Code.SERVICE_UNAVAILABLE]


async def test_states_not_taken(reactor: Any) -> None:
    """States that are not iterated over are dropped, the oldest first, and counted."""
    async with Served(reactor, settings=CoapClientSettings(max_notifications=2)) as served:
        states = await served.client.observe(served.uri("stats"))
        await until(reactor, lambda: states.skipped >= 2)
        states.cancel()
        states.cancel()
        assert len([state async for state in states]) == 2


async def test_proof(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that asks whether our address is ours is told."""
    monkeypatch.setattr("twisted_net.coap.echo.is_loopback", lambda host: False)
    async with Served(reactor) as served:
        assert (await served.client.post(served.uri("note"), b"x" * 3000)).text == "x" * 3000
    async with Served(reactor) as served:
        states = await served.client.observe(served.uri("stats"))
        assert (await anext(states)).ok
        assert (await anext(states)).ok
    async with Served(reactor) as served:
        assert (await served.client.get(served.uri("stats"))).ok


async def test_failures(reactor: Any) -> None:
    """A URI that is none, a silent server, a reset, a cancelled call, a closed client."""
    async with Served(reactor) as served:
        client = served.client
        for uri in ("http://a/", "coap:///x", "coap://a:x/", "coap://u@a/", "coap://a/#f"):
            with pytest.raises(InvalidCoapURI):
                await client.get(uri)
        with pytest.raises(InvalidCoapURI):
            await client.get("coap://a/" + "x" * 256)
        with pytest.raises(CoapTimeout, match=r"within 0\.1 seconds"):
            await client.post(served.uri("sleep"), b"30", timeout=0.1)
        call = client.post(served.uri("sleep"), b"30")
        call.cancel()
        with pytest.raises(CancelledError):
            await call
        waiting = client.post(served.uri("sleep"), b"30")
        states = await client.observe(served.uri("events"))
        closed = client.close()
        failed: list[BaseException | None] = []

        def note(failure: Failure) -> None:
            failed.append(failure.value)

        waiting.addErrback(note)
        await closed
        assert [type(error) for error in failed] == [CoapClientClosed]
        await anext(states)
        with pytest.raises(CoapClientClosed):
            await anext(states)
        with pytest.raises(CoapClientClosed):
            await client.get(served.uri("ping"))
        await client.close()


async def test_strange_servers(reactor: Any) -> None:
    """Resets, wrong blocks and silence are clear failures."""
    with pytest.raises(ResetByPeer):
        await strange(reactor, Strange(CoapMessage(Type.RST, 0)))
    with pytest.raises(CoapTimeout):
        await strange(reactor, Strange())
    wrong = CoapMessage(Type.ACK, Code.CONTINUE, options=[(Option.BLOCK1, b"\x1e")])
    with pytest.raises(TransferFailed):
        await strange(reactor, Strange(wrong), Code.POST)
    first = CoapMessage(
        Type.ACK, Code.CONTENT, options=[(Option.BLOCK2, b"\x08")], payload=b"a" * 16
    )
    gone = CoapMessage(Type.ACK, Code.NOT_FOUND, payload=b"gone")
    answer = await strange(reactor, Strange(first, gone), payload=b"")
    assert (answer.code, answer.text) == (Code.NOT_FOUND, "gone")


async def test_service(reactor: Any, tmp_path: Path) -> None:
    """``twistd -n net`` serves CoAP where it is enabled, and drains it at the end."""
    options = ("--tcp-port=0", "--udp-port=0", "--coap-enabled=true", "--coap-port=0")
    words = command_line("twistd", "epoll", *options)
    async with Running(reactor, words, tmp_path) as service, CoapClient(reactor) as client:
        match = await service.logged(r"listening on 127.0.0.1:(\d+) \(coap\)")
        uri = f"coap://127.0.0.1:{match[1]}"
        assert (await client.post(f"{uri}/echo", b"hello")).text == "hello"
        states = await client.observe(f"{uri}/events")
        service.signal(signal.SIGTERM)
        codes = [state.code async for state in states]
        assert codes == [Code.CONTENT, Code.SERVICE_UNAVAILABLE]
        assert (await service.ended()).status == 0


async def test_topics(reactor: Any, tmp_path: Path) -> None:
    """What is published over TCP reaches those that observe the topic over CoAP, and back."""
    options = ("--tcp-port=0", "--udp-port=0", "--coap-enabled=true", "--coap-port=0")
    words = command_line("twistd", "epoll", *options)
    async with Running(reactor, words, tmp_path) as service, CoapClient(reactor) as client:
        match = await service.logged(r"listening on 127.0.0.1:(\d+) \(coap\)")
        port, _ = await service.ports()
        uri = f"coap://127.0.0.1:{match[1]}/topics/shop.orders"
        tcp = CommandClient(reactor, server_endpoint(reactor, "127.0.0.1", port))
        async with tcp, await client.observe(uri) as states:
            assert (await anext(states)).text == ""
            published = await tcp.call("PUBLISH", "shop.orders", "two chairs")
            assert published["receivers"] == 1
            assert (await anext(states)).text == "two chairs"
            await tcp.subscribe("shop.>")
            assert (await client.post(uri, b"a table")).json()["receivers"] == 2
            async for event in tcp.events():
                assert event["message"] == "a table"
                break
            assert (await anext(states)).text == "a table"
        assert (await client.get(uri)).text == "a table"


async def test_example(reactor: Any, tmp_path: Path) -> None:
    """The device of the how-to is read, set and observed."""
    words = [sys.executable, str(EXAMPLE), "0"]
    async with Running(reactor, words, tmp_path) as device, CoapClient(reactor) as client:
        match = await device.logged(r"listening on 127.0.0.1:(\d+)")
        uri = f"coap://127.0.0.1:{match[1]}"
        async with await client.observe(f"{uri}/led") as states:
            assert (await anext(states)).text == "off"
            assert (await client.post(f"{uri}/switch", b"on")).text == "on"
            assert (await anext(states)).text == "on"
        assert json.loads((await client.get(f"{uri}/led", accept=50)).payload)["result"] == "on"


async def test_uploads_at_once(reactor: Any) -> None:
    """Uploads to one resource at once are kept apart: none has others' blocks (RFC 9175 §3.5)."""
    async with Served(reactor) as served:
        bodies = [letter * size for letter, size in ((b"a", 2000), (b"b", 3000), (b"c", 2500))]
        uri = served.uri("note")
        calls = [served.client.post(uri, body) for body in bodies]
        for call, body in zip(calls, bodies, strict=True):
            response = await call
            assert (response.code, response.payload) == (Code.CHANGED, body)
        assert sorted(served.runs) == sorted(body.decode() for body in bodies)


async def test_long_responses_at_once(reactor: Any) -> None:
    """Requests to one resource at once get the blocks of their own responses (RFC 9175 §3.5)."""
    async with Served(reactor) as served:
        for ask in (served.client.fetch, served.client.post):
            calls = [ask(served.uri("repeat"), word) for word in (b"ab", b"cde")]
            for call, word in zip(calls, ("ab", "cde"), strict=True):
                assert (await call).text == word * 1000
        assert not served.client._under_way


async def test_nobody_listens(reactor: Any) -> None:
    """Requests to a closed port fail at once, those to others do not (RFC 7252 §4.2)."""
    async with Served(reactor) as served, CoapClient(reactor) as client:
        for host in ("127.0.0.1", "[::1]"):
            uri = f"coap://{host}:{free_port()}/x"
            waiting = client.post(served.uri("sleep"), b"30")
            for calls in (1, 3):
                refused = [client.get(uri) for _ in range(calls)]
                for call in refused:
                    with pytest.raises(CoapHostUnreachable):
                        await call
            assert (await client.get(served.uri("ping"))).text == "PONG"
            waiting.cancel()
            with pytest.raises(CancelledError):
                await waiting


async def test_refused_at_once(reactor: Any) -> None:
    """The refusal of one request takes no datagram of the next one: nothing is sent again."""
    # So late that none of them is due for a busy machine.
    async with CoapClient(reactor, CoapClientSettings(ack_timeout=60)) as client:
        calls = [client.get(f"coap://127.0.0.1:{free_port()}/x") for _ in range(8)]
        for call in calls:
            with pytest.raises(CoapHostUnreachable):
                await call
        (endpoint,) = client._endpoints
        assert endpoint.layer.counts.retransmissions == 0


async def test_spellings(reactor: Any) -> None:
    """An IPv6 address of any spelling is the same server (RFC 5952), a scope of any form, too."""
    async with Served(reactor, interface="::1") as served:
        port = served.port.getHost().port
        for host in ("0:0:0::1", "::0001", "0000:0000:0:0:0:0:0:1"):
            assert (await served.client.get(f"coap://[{host}]:{port}/ping")).text == "PONG"
        with pytest.raises(CoapHostUnreachable):
            await served.client.get("coap://[fe80::1%25nowhere0]/ping")
