"""Everything that reads datagrams, with whatever may come: a short form of ``fuzz_coap``."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.coap import fuzz_coap
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message

option = st.tuples(st.sampled_from([int(known) for known in Option]), st.binary(max_size=20))


class ReaderTests(SynchronousTestCase):
    """No bytes bring an exception."""

    def test_long_inputs(self) -> None:
        """As much of one thing as fits into a kilobyte is read like anything else."""
        for data in fuzz_coap.long_inputs():
            with self.subTest(data=data[:20]):
                self.assertLessEqual(len(data), fuzz_coap.LONGEST)
                fuzz_coap.feed(data)

    @settings(max_examples=200)
    @given(st.binary(max_size=200))
    @example(b"")
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are an answer, a refusal or silence; a stranger gets three times as many."""
        self.assertLessEqual(fuzz_coap.feed(data), 3 * len(data))

    @settings(max_examples=200)
    @given(
        st.sampled_from([0, 1]),
        st.sampled_from([int(code) for code in Code if code]),
        st.lists(option, max_size=8),
        st.binary(max_size=60),
    )
    def test_any_options(
        self, kind: int, code: int, options: list[tuple[int, bytes]], payload: bytes
    ) -> None:
        """A server takes any known options, with any values, in a request or an answer."""
        message = CoapMessage(Type(kind), code, 1, b"t", sorted(options), payload)
        datagram = encode_message(message)
        self.assertLessEqual(fuzz_coap.feed_server(datagram), 3 * len(datagram))
