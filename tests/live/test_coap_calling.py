"""``twisted-net coap`` with real servers: in this process, and as one of its own."""

# mypy: disallow-untyped-calls=False
# The class of options has no types.

from __future__ import annotations

import io
import signal
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.usage import UsageError

from tests.live.processes import BIN, Running
from tests.live.test_coap import Served, Strange
from tests.patience import until
from twisted_net.cli.call import REFUSED, UNANSWERED
from twisted_net.cli.coap import CoapCommand, CoapOptions
from twisted_net.cli.run import INTERRUPTED, UNREAD
from twisted_net.coap.codec import CoapMessage, Code, Option, Type
from twisted_net.coap.settings import CoapLimits


@pytest.fixture
def reactor(patient_reactor: Any) -> Any:  # Any: reactors have no one type
    """The reactor of these tests: none of their short timeouts is due for a busy machine."""
    return patient_reactor


class Run:
    """One run of the command within this process; its outputs are kept."""

    def __init__(self, reactor: Any, *words: str, body: bytes = b"") -> None:  # Any: no one type
        options = CoapOptions()
        options.parseOptions(words)
        self.out, self.err = io.BytesIO(), io.StringIO()
        payload = options.body(io.BytesIO(body))
        self._command = CoapCommand(reactor, options, payload, self.out, self.err)
        self.ended = Deferred.fromCoroutine(self._command.run())

    @property
    def shown(self) -> str:
        """What the standard output got."""
        return self.out.getvalue().decode()


async def run(reactor: Any, *words: str, body: bytes = b"") -> tuple[int, str, str]:
    """Run the command; give its status, its output and what it complained of."""
    made = Run(reactor, *words, body=body)
    return await made.ended, made.shown, made.err.getvalue()


async def test_answers(reactor: Any) -> None:
    """Bodies go to the output as they are; options say in which formats."""
    async with Served(reactor) as served:
        assert await run(reactor, "get", served.uri("ping")) == (0, "PONG", "")
        echo = served.uri("echo")
        assert await run(reactor, "post", echo, "a  b") == (0, "a b", "")
        assert await run(reactor, "post", "-", echo, "-f", "json") == (
            UNANSWERED,
            "",
            "twisted-net coap: cannot request -: its scheme is neither coap nor coaps\n",
        )
        words = ("-N", "post", echo, "-", "-f", "json", "-a", "json")
        status, out, _ = await run(reactor, *words, body=b'["a b", 1]')
        assert (status, out) == (0, '{"command":"ECHO","result":"a b 1"}')


async def test_fetch(reactor: Any) -> None:
    """``fetch`` has the arguments of a safe command in its payload."""
    async with Served(reactor) as served:
        echo = served.uri("echo")
        assert await run(reactor, "fetch", echo, "a  b") == (0, "a b", "")
        long = "x" * 3000
        assert await run(reactor, "fetch", echo, "-", body=long.encode()) == (0, long, "")


async def test_report(reactor: Any) -> None:
    """``--report`` sends one message, which is heard, and waits for nothing."""
    async with Served(reactor) as served:
        assert await run(reactor, "-R", "post", served.uri("note"), "21.5") == (0, "", "")
        await until(reactor, lambda: served.runs == ["21.5"])
        assert served.server.layer.counts.sent == 0
    for words in (("get", "u"), ("fetch", "u"), ("observe", "u"), ("post", "-o", "f", "u")):
        with pytest.raises(UsageError):
            CoapOptions().parseOptions(["-R", *words])


async def test_verbose(reactor: Any) -> None:
    """``-v`` shows the code and the options of an answer, apart from its body."""
    async with Served(reactor) as served:
        status, out, err = await run(reactor, "-v", "get", served.uri("ping"))
        assert (status, out) == (0, "PONG")
        assert err == "2.05 Content\n  Content-Format: 0\n  Max-Age: 0\n"


async def test_refusals(reactor: Any) -> None:
    """An answer that is an error is one line, and status 1; none at all is status 2."""
    async with Served(reactor) as served:
        for method, path, sentence in (
            ("get", "nope", "4.04 Not Found: no resource /nope; see /.well-known/core"),
            ("put", "echo", "4.05 Method Not Allowed: this resource takes GET or FETCH or POST"),
            ("delete", "note", "4.05 Method Not Allowed: this resource takes POST"),
        ):
            ended = await run(reactor, method, served.uri(path))
            assert ended == (REFUSED, "", f"twisted-net coap: {sentence}\n")
        answered = await run(reactor, "-t", "0.1", "post", served.uri("sleep"), "30")
        assert answered[0] == UNANSWERED
        assert "no response within 0.1 seconds" in answered[2]
    steering = CoapMessage(Type.ACK, Code.BAD_REQUEST, payload=b"\x1b[2J\nno")
    port = reactor.listenUDP(0, Strange(steering), interface="127.0.0.1")
    ended = await run(reactor, "get", f"coap://127.0.0.1:{port.getHost().port}/")
    assert ended == (REFUSED, "", "twisted-net coap: 4.00 Bad Request:  [2J no\n")
    await port.stopListening()


async def test_coaps(reactor: Any, tmp_path: Path) -> None:
    """Files that cannot be used, and a server that does not speak DTLS, are clear failures."""
    with pytest.raises(UsageError, match=r"none\.pem"):
        await run(reactor, "--ca", str(tmp_path / "none.pem"), "get", "coaps://127.0.0.1/")
    async with Served(reactor) as served:
        uri = served.uri("ping").replace("coap:", "coaps:")
        status, out, err = await run(reactor, "--insecure", "-t", "0.3", "get", uri)
        assert (status, out) == (UNANSWERED, "")
        assert err.startswith("twisted-net coap: no response within 0.3 seconds")


async def test_blocks(reactor: Any, tmp_path: Path) -> None:
    """A long body goes and comes in blocks of the size asked for, into a file if told to."""
    path = tmp_path / "body"
    async with Served(reactor) as served:
        words = ("post", served.uri("note"), "-", "-b", "64", "-o", str(path))
        assert await run(reactor, *words, body=b"x" * 10_000) == (0, "", "")
        assert path.read_bytes() == b"x" * 10_000
        before = served.server.layer.counts.received
        assert len((await run(reactor, "get", served.uri("big"), "-b", "512"))[1]) == 30_000
        assert served.server.layer.counts.received - before == -(-30_000 // 512)
        with pytest.raises(UsageError, match="No such file"):
            await run(reactor, "get", served.uri("ping"), "-o", str(tmp_path / "no" / "file"))


async def test_non(reactor: Any) -> None:
    """With ``-N`` messages are non-confirmable, the answer too."""
    answer = CoapMessage(Type.NON, Code.CONTENT, payload=b"x")
    server = Strange(answer)
    port = reactor.listenUDP(0, server, interface="127.0.0.1")
    assert (await run(reactor, "-N", "get", f"coap://127.0.0.1:{port.getHost().port}/"))[1] == "x"
    assert [message.type for message in server.asked] == [Type.NON]
    await port.stopListening()


async def test_observe(reactor: Any) -> None:
    """Each state is a line; after as many as are wanted the server is told that it is over."""
    async with Served(reactor) as served:
        status, out, _ = await run(reactor, "observe", served.uri("stats"), "-c", "3")
        assert (status, out.count("\n"), out.count("STATS")) == (0, 3, 3)
        assert served.server.observers == 0
        status, out, error = await run(reactor, "observe", served.uri("ping"))
        assert (status, out) == (UNANSWERED, "PONG\n")
        assert "does not notify" in error
        ended = await run(reactor, "observe", served.uri("nope"))
        assert (ended[0], ended[1]) == (REFUSED, "")


async def test_cancelled(reactor: Any) -> None:
    """What is interrupted says goodbye to who is observed, and leaves nothing behind."""
    async with Served(reactor) as served:
        observing = Run(reactor, "observe", served.uri("events"))
        await until(reactor, lambda: served.server.observers == 1)
        observing.ended.cancel()
        assert await observing.ended == 0
        assert (observing.shown, served.server.observers) == ("{}\n", 0)
        before = served.server.layer.counts.received
        asking = Run(reactor, "post", served.uri("sleep"), "30")
        await until(reactor, lambda: served.server.layer.counts.received > before)
        asking.ended.cancel()
        assert await asking.ended == INTERRUPTED


async def test_no_deregistration(reactor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer the goodbye is left without one."""
    monkeypatch.setattr("twisted_net.cli.coap.DEREGISTER_TIMEOUT", 0.05)
    state = CoapMessage(Type.ACK, Code.CONTENT, options=[(Option.OBSERVE, b"")], payload=b"x")
    server = Strange(state)
    port = reactor.listenUDP(0, server, interface="127.0.0.1")
    uri = f"coap://127.0.0.1:{port.getHost().port}/"
    assert await run(reactor, "observe", "-c", "1", uri) == (0, "x\n", "")
    first, goodbye = server.asked
    assert goodbye.token == first.token
    assert goodbye.option(Option.OBSERVE) == b"\x01"
    await port.stopListening()


async def test_script(reactor: Any, tmp_path: Path) -> None:
    """The console script asks; Ctrl-C ends an observation at once, and the server forgets it."""
    words = [str(BIN / "twisted-net"), "coap"]
    async with Served(reactor, CoapLimits(refresh_interval=60)) as served:
        async with Running(reactor, [*words, "get", served.uri("ping")], tmp_path) as asking:
            ended = await asking.ended()
        assert (ended.status, ended.stdout, ended.stderr) == (0, "PONG", "")
        async with Running(reactor, [*words, "get", served.uri("nope")], tmp_path) as asking:
            assert (await asking.ended()).status == REFUSED
        nowhere = [*words, "-o", "no/file", "get", served.uri("ping")]
        async with Running(reactor, nowhere, tmp_path) as asking:
            ended = await asking.ended()
        assert (ended.status, ended.stderr) == (
            UNANSWERED,
            "twisted-net coap: no/file: No such file or directory\n",
        )
        async with Running(
            reactor, [*words, "observe", served.uri("stats")], tmp_path
        ) as observing:
            await observing.logged("STATS")
            observing.signal(signal.SIGINT)
            ended = await observing.ended()
        assert (ended.status, ended.stderr, served.server.observers) == (0, "", 0)
        counts = served.server.layer.counts
        before = counts.received
        async with Running(
            reactor, [*words, "post", served.uri("sleep"), "30"], tmp_path
        ) as asking:
            await until(reactor, lambda: counts.received > before)
            asking.signal(signal.SIGINT)
            ended = await asking.ended()
        assert (ended.status, ended.stderr) == (INTERRUPTED, "")


async def test_reader_goes(reactor: Any, tmp_path: Path) -> None:
    """If the reader of the output closes it, an observation ends as it does for other commands."""
    async with Served(reactor) as served:
        command = f"{BIN / 'twisted-net'} coap observe {served.uri('stats')} | head -n 1"
        words = ["/bin/bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
        async with Running(reactor, words, tmp_path) as piped:
            ended = await piped.ended()
        assert (ended.status, ended.stderr, served.server.observers) == (UNREAD, "", 0)
        assert ended.stdout.count("STATS") == 1
