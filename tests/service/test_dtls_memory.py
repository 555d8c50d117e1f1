"""Sessions of DTLS that give way, as all clients hold too much, are audited as connections are."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.dtls_wire import HERE, SERVER, Files, Wire, _Port
from tests.service.test_net import ThreadedReactor
from twisted_net.net.memory_ledger import MemoryAccount
from twisted_net.reasons import Audited
from twisted_net.service.config import (
    CoapDtlsSettings,
    CoapSettings,
    Config,
    UdpDtlsSettings,
    UdpSettings,
)
from twisted_net.service.net import NetService


class DtlsMemoryTests(SynchronousTestCase):
    """The ports of a service with DTLS."""

    def test_audit(self) -> None:
        """Each shows the client whose session it ends."""
        files = Files()
        self.addCleanup(files.remove)
        config = Config(
            udp=UdpSettings(dtls=UdpDtlsSettings(certificate=files.server)),
            coap=CoapSettings(dtls=CoapDtlsSettings(certificate=files.server)),
        )
        for name in ("secure_udp", "secure_coap"):
            reactor: Any = ThreadedReactor()  # Any: what a service needs of one
            service = NetService(reactor, config)
            dtls = getattr(service, name).dtls
            wire = Wire(files)
            self.addCleanup(wire.stop)
            wire.server = dtls
            dtls.makeConnection(_Port(wire, SERVER))
            client = wire.connect(HERE)
            self.assertTrue(client.connected)
            heard: list[tuple[str, str, str]] = []

            def audit(event: str, who: Audited, what: str, heard: Any = heard) -> None:
                heard.append((event, who.name, what))

            self.patch(service.sessions, "audit", audit)
            memory = service.sessions.memory
            others: MemoryAccount[str] = memory.account("others")
            others.set("all", memory.limit)
            reactor.advance(0)
            reactor.advance(0)
            wire.run()
            self.assertEqual(dtls.figures()["ended_buffers_full"], 1, name)
            self.assertEqual(heard, [("closed", f"{HERE[0]}:{HERE[1]}", "buffers_full")], name)
            self.assertTrue(client.lost, name)
