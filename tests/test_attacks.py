"""The benchmark of attacks: its rows fit together, and a bound that does not hold is shown."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections import Counter
from ipaddress import ip_address, ip_network
from itertools import islice
from pathlib import Path
from unittest import mock

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Pong

from benchmarks import attacks
from benchmarks.attack_rows import ATTACKS, NO_ATTACK, OPEN, Attack
from benchmarks.attacked import NAME, PASSWORD, users
from benchmarks.attacks import HEADINGS, PROBER, Outcome, Seen, faults, row
from benchmarks.coap_crowds import DATAGRAM, URL
from benchmarks.crowds import CROWDS, PER_PAGE, SECRET, Counts, crowd_of
from benchmarks.hostile_origin import PAGES
from benchmarks.layer_crowds import Records
from benchmarks.right_users import KNOWN, TRIES, Logins, fresh
from twisted_net.auth.users import read_users
from twisted_net.coap.codec import Option, parse_message, uint_option
from twisted_net.config.loader import Layers
from twisted_net.reasons import End, Refusal
from twisted_net.service.config import Config
from twisted_net.tcp.limits import Limits

SECURED = Attack(NO_ATTACK.config, 1e6, "nothing grows")


def outcome() -> Outcome:
    """Return the outcome of an attack that all bounds held against."""
    users = Logins([200.0] * TRIES), Logins([300.0] * TRIES)
    seen = Seen([1.0] * 100, [0.5] * 100, [2.0, 3.0], users)
    return Outcome(Counts(opened=50, sent=1_000_000), seen, 0.25, 0.0, 500_000.0, 0.0, {})


class RowTests(SynchronousTestCase):
    """Each attack has a crowd, a configuration that is valid, and reasons that there are."""

    def test_crowds(self) -> None:
        """There is a crowd for each attack, and no other."""
        self.assertEqual(sorted(CROWDS), sorted(ATTACKS))

    def test_documented(self) -> None:
        """The page on securing a server lists each, with what limits it."""
        page = Path(__file__).parents[1].joinpath("docs", "howto", "securing.rst").read_text()
        listed = re.findall(r"^``(\w+)`` +\w", page, re.MULTILINE)
        self.assertEqual(sorted(listed), sorted(ATTACKS))

    def test_configurations(self) -> None:
        """All settings exist; users are configured where somebody logs in."""
        for name, attack in [*ATTACKS.items(), ("none", NO_ATTACK)]:
            layers = Layers(Config(), "NET_")
            layers.add_toml(attack.config.format(port=1, other=2, folder="/x"), name)
            config = layers.load().record
            self.assertEqual(config.auth.users is not None, attack.logins, name)
            self.assertEqual(len(config.listeners) == 1, attack.second_listener, name)

    def test_reasons(self) -> None:
        """What must be counted is a reason that the server counts."""
        known = {reason.value for reasons in (End, Refusal) for reason in reasons}
        for name, attack in ATTACKS.items():
            self.assertLessEqual({*attack.counted}, known, name)
            self.assertLessEqual({attack.ended} - {""}, known, name)

    def test_users(self) -> None:
        """The users file is valid; some of the crowd may hear nothing, and ann has a password."""
        found = read_users(users(), "users.toml")
        deaf, right = found.get("deaf"), found.get(NAME)
        assert deaf is not None
        assert right is not None
        self.assertEqual(deaf.subscribe, ())
        self.assertIsNotNone(right.password)
        self.assertNotIn('"', PASSWORD)


class CrowdTests(SynchronousTestCase):
    """Who comes from where, and what they say."""

    def test_one_page(self) -> None:
        """A part of the attack by hostile pages is 16 clients that fetch the same one."""
        for page in PAGES:
            crowd = crowd_of(f"hostile_pages:{page}")
            self.assertEqual(crowd.size, PER_PAGE)
            for number in (0, 5):
                line = next(crowd.script(number)).decode()
                self.assertRegex(line, rf"^FETCH http://[0-9.:]+/{page}\?{number}-0\n$")

    def test_guessers(self) -> None:
        """They come from 500 addresses, of one /24, of one /16, and of many /16s."""
        found = CROWDS["guessers"]()
        sources = {found.source(number) for number in range(5000)}
        self.assertEqual(len(sources), 500)
        sizes = [
            Counter(ip_network(f"{source}/{bits}", strict=False) for source in sources)
            for bits in (24, 16)
        ]
        self.assertEqual(max(sizes[0].values()), 100)
        self.assertEqual(sorted(sizes[1].values())[-2:], [100, 200])
        self.assertEqual(len(sizes[1]), 202)

    def test_guessed_names(self) -> None:
        """They guess for the user who logs in meanwhile, for another one, and for nobody."""
        lines = [next(CROWDS["guessers"]().script(number)) for number in range(3)]
        words = [line.split() for line in lines]
        self.assertEqual({len(word) for word in words}, {3})
        self.assertEqual([word[1] for word in words], [b"root", b"ann", b"nobody2"])
        self.assertNotIn(PASSWORD.encode(), b"".join(lines))

    def test_right_users(self) -> None:
        """The right users share no address with any attacker; each fresh address is another."""
        own = {KNOWN, PROBER, *map(fresh, range(TRIES))}
        self.assertEqual(len(own), TRIES + 2)
        for name, crowd in CROWDS.items():
            sources = {crowd().source(number) for number in range(25_000)}
            self.assertEqual(sources & own, set(), name)
            self.assertTrue(all(ip_address(source).is_loopback for source in sources))
        guessers = {CROWDS["guessers"]().source(number).split(".")[1] for number in range(500)}
        shared = [number for number in range(TRIES) if fresh(number).split(".")[1] in guessers]
        self.assertEqual(len(shared), TRIES // 2)

    def test_pages(self) -> None:
        """Requests are whole, with commands in the body, under and over each limit of a line."""
        script = CROWDS["page"]().script
        pages = [next(script(number)) for number in range(12)]
        lengths = []
        for page in pages:
            head, _, body = page.partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            self.assertRegex(lines[0], rb"^(POST|PUT|OPTIONS) /\?a* HTTP/1\.1$")
            self.assertIn(b"Content-Length: %d" % len(body), lines)
            self.assertIn(b"\nFETCH http://", body)
            lengths.append(len(lines[0]))
        limits = sorted({sum(length > limit for limit in (1024, 16_384)) for length in lengths})
        self.assertEqual(limits, [0, 1, 2])

    def test_strangers(self) -> None:
        """One of 5,021 says a secret, ten others may hear it, and ten users may not."""
        crowd = CROWDS["strangers"]()
        first = list(islice(crowd.script(0), 2))
        self.assertIn(SECRET * 100, first[1])
        said = [list(crowd.script(number)) for number in range(1, crowd.size)]
        self.assertEqual(sum(map(len, said)), 20)
        self.assertEqual([crowd.may_hear(number) for number in (1, 10, 11)], [True, True, False])


class CoapCrowdTests(SynchronousTestCase):
    """What is sent by CoAP is as large as it may be, and reaches what it is meant for."""

    def test_options(self) -> None:
        """Messages have as many options as fit, each with an ID of its own."""
        script = CROWDS["coap_options"]().script(0)
        messages = list(islice(script, 8 * 6))
        self.assertEqual(len({message[2:4] for message in messages}), len(messages))
        for message in messages:
            self.assertEqual(len(message), DATAGRAM)
            self.assertGreater(message[4:].count(b"\0"), DATAGRAM - 16)

    def test_blocks(self) -> None:
        """A URL in blocks comes whole, as the argument of FETCH."""
        script = islice(CROWDS["coap_options"]().script(0), 48, None)
        body = b""
        for i, datagram in enumerate(script):
            message = parse_message(datagram)
            block = uint_option(message.options, Option.BLOCK1)
            assert block is not None
            self.assertEqual((block >> 4, block & 7), (i, 6))
            self.assertEqual(message.option(Option.URI_PATH), b"fetch")
            body += message.payload
            if not block & 8:
                break
        self.assertEqual(body, URL)

    def test_long_urls(self) -> None:
        """Lines are as long as they may be by default."""
        for number in range(3):
            line = next(CROWDS["fetch_long"]().script(number))
            self.assertTrue(line.startswith(b"FETCH "))
            self.assertEqual(len(line), Limits().max_line + 1)


class LayerCrowdTests(SynchronousTestCase):
    """What is sent within TLS and WebSockets is what it is meant to be."""

    def test_frames(self) -> None:
        """Each frame has six bytes, and is a pong that may be sent unasked."""
        script = CROWDS["ws_frames"]().script(0)
        upgrade, some = islice(script, 2)
        self.assertTrue(upgrade.endswith(b"\r\n\r\n"))
        wire = Connection(ConnectionType.SERVER)
        wire.receive_data(some[:600])
        events = list(wire.events())
        self.assertEqual(len(events), 100)
        for event in events:
            assert isinstance(event, Pong)
            self.assertEqual(event.payload, b"")

    def test_records(self) -> None:
        """Records are encrypted as RFC 8448 has it, of either length of secret."""
        # RFC 8448 §3: the client's secret, and its first record of data after the handshake.
        secret = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
        record = Records(secret).data(bytes(range(50)))
        self.assertEqual(
            record.hex(),
            "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a"
            "9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4",
        )
        self.assertEqual(len(Records(bytes(48)).data(b"x")), 5 + 1 + 1 + 16)

    def test_key_updates(self) -> None:
        """No two KeyUpdates are the same, as each has keys of its own."""
        records = Records(bytes(48))
        self.assertEqual(len({records.key_update() for _ in range(10)}), 10)


class FaultsTests(SynchronousTestCase):
    """:func:`faults` names each bound that did not hold."""

    def test_held(self) -> None:
        """There is none where all held."""
        self.assertEqual(faults(SECURED, outcome()), [])

    def test_each(self) -> None:
        """Each bound is noticed on its own."""
        held, seen = outcome(), outcome().seen
        late = Logins([1.0] * (TRIES - 1), Counter(late=1))
        strict = evolve(SECURED, counted=("busy",), ended="killed", not_run=("KILL",), heard=True)
        right = evolve(held, counted={"busy": 1, "killed": 50}, crowd=Counts(opened=50, heard=1))
        self.assertEqual(faults(strict, right), [])
        for attack, broken, expected in (
            (SECURED, evolve(held, seen=evolve(seen, own=[1.0] * 97 + [11.0] * 3)), "PING p99"),
            (SECURED, evolve(held, peak=2e6), "2 MB, over 1 (nothing grows)"),
            (SECURED, evolve(held, seen=evolve(seen, newcomers=[None])), "newcomers"),
            (SECURED, evolve(held, seen=evolve(seen, users=(seen.users[0], late))), "fresh: 19"),
            (SECURED, evolve(held, seen=evolve(seen, users=(late, seen.users[1]))), "known: 19"),
            (SECURED, evolve(held, crowd=Counts(leaked=7)), "7 bytes reached strangers"),
            (strict, evolve(right, counted={"killed": 50}), "busy is not counted"),
            (strict, evolve(right, counted={"busy": 1, "killed": 49}), "49 killed of 50"),
            (strict, evolve(right, counted={**right.counted, "KILL": 2}), "ran KILL 2 times"),
            (strict, evolve(right, crowd=Counts(opened=50)), "no member heard anything"),
        ):
            found = faults(attack, broken)
            self.assertEqual(len(found), 1, found)
            self.assertIn(expected, found[0])

    def test_row(self) -> None:
        """A row stands under its headings; the line after it says what was counted."""
        late = Logins([1999.0], Counter(late=18, busy=1))
        seen = evolve(outcome().seen, users=(outcome().seen.users[0], late))
        lines = row("guessers", SECURED, evolve(outcome(), seen=seen, counted={"busy": 1}))
        figures, notes = lines.split("\n")
        bounds = HEADINGS.index("bounds")
        self.assertEqual(figures[bounds:], "right passwords from fresh: 1 of 20")
        self.assertEqual(
            figures[:bounds].split(),
            [
                *("guessers", "50", "1.0", "25%", "0%", "0.5", "0.0", "1.00", "1.00", "1.00"),
                *("0.50", "2/2", "3.0", "20/20", "1/20", "1999"),
            ],
        )
        self.assertEqual(notes.strip(), "busy 1, logins (fresh) late 18, logins (fresh) busy 1")

    def test_open(self) -> None:
        """Where nobody logs in, nothing is said of logins."""
        seen = evolve(outcome().seen, users=())
        attack = Attack(OPEN, 1e6, "nothing grows")
        figures = row("flood_ping", attack, evolve(outcome(), seen=seen)).split("\n")[0]
        self.assertEqual(figures.split()[-2:], ["3.0", "held"])
        self.assertTrue(figures.endswith("held"))
        self.assertEqual(len(figures), HEADINGS.index("bounds") + len("held"))


class MainTests(SynchronousTestCase):
    """The command line tells mistakes before it attacks."""

    def test_mistakes(self) -> None:
        """A name that there is not, and a twistd that there is not."""
        for words, expected in (
            (["nothing"], "there is no attack nothing; there are slowloris"),
            (["--twistd=/no/twistd"], "--twistd: /no/twistd: no program"),
        ):
            printed = io.StringIO()
            with (
                mock.patch.object(sys, "argv", ["attacks", *words]),
                contextlib.redirect_stderr(printed),
            ):
                self.assertEqual(self.assertRaises(SystemExit, attacks.main).code, 2)
            self.assertIn(expected, printed.getvalue())
