"""What a stranger sends costs work in proportion to its length, at every door."""

from __future__ import annotations

from functools import cache, partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.complexity.doors import DOORS, TURNS, Door, Input
from tests.complexity.entry_points import entry_points, name_of
from tests.complexity.work import Work, counted
from tests.due_calls import call_due
from tests.runaway import MEGABYTE, ended_if_runaway

SMALL = 1000
"""Bytes of the first input; the second has four times as many."""

GROWTH, CONSTANT = 5, 400
"""
What the second may take, in calls, of those of the first, and more than that: four times, and what
is done once when a table grows or a limit is passed. Quadratic work would take sixteen times.
"""

READ = 65_536
"""Bytes that are read at once, and may be many units. In one turn some of these are processed."""

TURN_CALLS = 20_000
"""
Calls that a turn may make, whatever has come.

These take 2 to 4 ms, less than the 5 that others may have to wait. No clock goes on in these tests:
this is what the numbers of units bound; the time of a turn bounds it further.
"""

FEW = 2000
"""Calls up to which an input is also sent at a megabyte: C does all the work, uncounted."""

OURS = "what we send, or a function of it"
BELOW = "hands on what another function is driven with"
SECURE = "takes what OpenSSL has authenticated, or hands it to OpenSSL"

NOT_DRIVEN = {
    "auth.passwords.hash_password": OURS,
    "broadcasts.Audience.send_event": OURS,
    "cli.coap.describe": OURS,
    "cli.display.TerminalWriter.feed": "of a server that the user asked, once",
    "cli.display.terminal_body": "as above",
    "coap.blockwise.RequestAssembler.add": "keeps a block of at most 1024 bytes",
    "coap.blockwise.cut_block": OURS,
    "coap.client.CoapClient.fetch": OURS,
    "coap.client.CoapClient.post": OURS,
    "coap.client.CoapClient.report": OURS,
    "coap.client.CoapClient.request": OURS,
    "coap.client_endpoints.ClientEndpoint.datagramReceived": BELOW,
    "coap.client_request.BlockwiseRequest.perform": OURS,
    "coap.client_request.response_of": "takes a body that is complete, once",
    "coap.group_client._ResponseCollector.datagramReceived": BELOW,
    "coap.observe.ObserverList.deregister": "takes a token of at most 8 bytes",
    "coap.observe.ObserverList.register": "takes a token of at most 8 bytes",
    "commands.registry.Commands.name_of": BELOW,
    "commands.runner.CommandRunner.note_if_slow": BELOW,
    "commands.runner.CommandRunner.show": BELOW,
    "discovery.service.GroupSockets.send": OURS,
    "dtls.client.DtlsClient.datagramReceived": SECURE,
    "dtls.client.DtlsClient.write": OURS,
    "dtls.cookies.CookieSecret.renew": OURS,
    "dtls.cookies.hello_verify_request": OURS,
    "dtls.psk_callbacks.prove_by_key": OURS,
    "dtls.psk.offers_psk": "reads each cipher suite of one datagram once",
    "dtls.records.pack_records": OURS,
    "dtls.server.DtlsServer.datagramReceived": BELOW,
    "dtls.server.DtlsServer.write": OURS,
    "dtls.session.DtlsSession.accept": SECURE,
    "dtls.session.DtlsSession.receive": SECURE,
    "dtls.session.DtlsSession.send": OURS,
    "http.agent_edge.AgentEdge.request": OURS,
    "http.agent_edge.outgoing_request": OURS,
    "http.cache.serialization.decode_head": "reads what the cache itself has written",
    "http.cache.tee.BodyTee.dataReceived": BELOW,
    "http.calls.direct_get.DirectGet.received": BELOW,
    "http.calls.progress._CountingRelay.dataReceived": BELOW,
    "http.calls.upload._CountingConsumer.write": OURS,
    "http.content_coding._Decoder.decode": "is a Protocol of the decoders, which are driven",
    "http.h1.chunked.encode_chunk": OURS,
    "http.h1.tls_calls.TlsCalls.encrypt": OURS,
    "http.h1.tls_calls.TlsCalls.put_input": SECURE,
    "http.h1.tls_calls._DirectTlsCalls.encrypt": OURS,
    "http.h1.tls_calls._DirectTlsCalls.put_input": SECURE,
    "http.h1.tls_transport.ClientTlsTransport.dataReceived": SECURE,
    "http.h1.tls_transport.ClientTlsTransport.is_ending": "looks at headers in some kilobytes",
    "http.h1.tls_transport.ClientTlsTransport.write": OURS,
    "http.h1.upload.Upload.write": OURS,
    "http.h1.wire.Wire.begin": OURS,
    "http.h1.wire.WireExchange.received": "is a Protocol of the exchanges, which are driven",
    "http.streaming._BodyBuffer.dataReceived": BELOW,
    "http.treq.completing_agent.AnsweredAgent.request": OURS,
    "http.treq.completing_agent.CompletingAgent.request": OURS,
    "http.tunnel.Tunnel.dataReceived": BELOW,
    "http.tunnel.Tunnel.open": OURS,
    "net.files.locked": OURS,
    "net.redaction.shown_opening": "takes the first bytes of a line",
    "net.tls_policy.TlsPolicy.creatorForNetloc": OURS,
    "net.untrusted_json.depth": BELOW,
    "ops.monitor.MonitoredClient.deliver": OURS,
    "tcp.client._Connection.dataReceived": BELOW,
    "tcp.connection_guard.ConnectionGuard.refuse_command": BELOW,
    "tcp.connection_guard.GuardedConnection.deliver": OURS,
    "tcp.line_framer.LineFramer.keep": BELOW,
    "tcp.proxy_protocol._ProxyProtocol.dataReceived": BELOW,
    "tcp.tls_transport.TlsTransport.dataReceived": SECURE,
    "tcp.transport.Batch.add": OURS,
    "tcp.transport.FastTransport.write": OURS,
    "testing.MemoryWeb.request": OURS,
    "topics.messages.message_from_line": "reads what we have written to a file",
    "turns.paced_reads.Cutter.keep": "is a Protocol of the cutters, which are driven",
    "turns.tls_records.RecordCutter.is_record": "looks at one header",
    "udp.amplification_guard.AmplificationGuard.answer": BELOW,
    "udp.client.DatagramClient.ask": OURS,
    "udp.client._ClientProtocol.datagramReceived": "compares it with what it waits for",
    "udp.multicast.DelayedAnswers.send": OURS,
    "udp.multicast.GroupProtocol.datagramReceived": BELOW,
    "udp.port.CappedPort.write": OURS,
    "udp.client_port.ClientPort.write": OURS,
    "udp.server.DatagramServer.answer_group": BELOW,
}
"""Functions that take bytes and that no door leads to in these tests, and why they need none."""


@cache
def work(door: Door, data: Input, size: int) -> Work:
    """Return what an input of a size takes."""
    return counted(partial(door.feed, door.open(), data.of_size(size)), TURNS)


def is_linear(small: int, large: int) -> bool:
    """Whether four times the bytes have taken about four times the calls."""
    return large <= GROWTH * small + CONSTANT


class DoorTests(SynchronousTestCase):
    """All doors, with all their inputs."""

    def test_linear(self) -> None:
        """Four times the bytes take about four times the calls."""
        wrong = []
        for name, door in DOORS.items():
            for number, data in enumerate(door.inputs):
                small = work(door, data, SMALL).calls
                large = work(door, data, 4 * SMALL).calls
                if not is_linear(small, large):
                    wrong.append(f"{name}, {number}: {small} and {large} calls")
        self.assertEqual(wrong, [])

    def test_turns(self) -> None:
        """One unit at its limit, or one read of many, fits a turn."""
        wrong = []
        for name, door in DOORS.items():
            # Where the bytes come one by one, each has a turn of its own.
            for number, data in enumerate(() if door.by_byte else door.inputs):
                calls = work(door, data, data.longest or READ).longest_turn
                if calls > TURN_CALLS:
                    wrong.append(f"{name}, {number}: {calls} calls")
        self.assertEqual(wrong, [])

    def test_large(self) -> None:
        """Where one call of C does it all, a megabyte takes its time once, not squared."""
        tried = 0
        for door in DOORS.values():
            for data in door.inputs:
                if work(door, data, 4 * SMALL).calls <= FEW:
                    feed, sent = door.open(), data.of_size(data.longest or MEGABYTE)
                    with ended_if_runaway():
                        door.feed(feed, sent)
                    tried += 1
        self.assertGreater(tried, 50)

    def test_all_entry_points(self) -> None:
        """A door leads to each function that takes bytes, or it says here why none need to."""
        driven = {
            name_of(code)
            for door in DOORS.values()
            for data in door.inputs
            for code in work(door, data, SMALL).codes
        }
        left = {name.removeprefix("twisted_net.") for name in entry_points("twisted_net")}
        left -= {name.removeprefix("twisted_net.") for name in driven}
        self.assertEqual(sorted(left), sorted(NOT_DRIVEN))

    def test_counted_turns(self) -> None:
        """Of some turns the longest is seen, be it the first, the last or another."""
        clock = Clock()

        def begin() -> None:
            call_due(clock)

        for turns in ([50, 1, 2], [1, 50, 2], [1, 2, 50]):

            def spend(turns: list[int] = turns) -> None:
                for calls in turns:
                    begin()
                    for _ in range(calls):
                        clock.seconds()

            longest = counted(spend, TURNS).longest_turn
            self.assertTrue(50 <= longest < 60, longest)

    def test_counted(self) -> None:
        """Quadratic work is seen, and linear work passes."""

        def quadratic(data: bytes) -> None:
            for i in range(len(data)):
                for _ in range(i):
                    data.count(b"x", 0, 1)

        data = Input(b"", b"x")
        squared, plain = Door(lambda: quadratic, (data,)), Door(lambda: list, (data,), by_byte=True)
        for door, grows in ((squared, True), (plain, False)):
            small, large = (work(door, data, size).calls for size in (100, 400))
            self.assertEqual(is_linear(small, large), not grows)
