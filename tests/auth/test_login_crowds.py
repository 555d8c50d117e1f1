"""Right users log in within two seconds, whatever crowds guess: counted in virtual time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.auth.login_crowds import KNOWN, TRIES, Crowd, successes

NAMES: dict[str, Callable[[int], str]] = {
    "several": lambda k: ("root", "ann", f"nobody{k}", "mallory")[k % 4],
    "the user's": lambda k: "ann",
    "one each": lambda k: f"user{k}",
    "another's": lambda k: "root",
}
"""The names that a crowd tries."""


def loopback(number: int) -> str:
    """Return one of 500 addresses: of one /24, of as many /24s of one /16, and of 200 /16s."""
    i = number % 500
    if i < 100:
        return f"127.3.0.{i + 1}"
    if i < 300:
        return f"127.4.{i - 100}.7"
    return f"127.{i - 280}.5.9"


def loopback_user(number: int) -> str:
    """Return an address that is new: of a /16 of its own, or of one with guessers."""
    return f"127.{20 + number if number % 2 else 230 + number}.77.{number + 1}"


def everywhere(number: int) -> str:
    """Return another address of all of IPv4 each time."""
    scattered = number * 2_654_435_761 % 2**32
    return ".".join(str(scattered >> bits & 255) for bits in (24, 16, 8, 0))


HOSTS: dict[str, tuple[int, Callable[[int], str]]] = {
    "500 addresses": (500, lambda k: f"60.{k % 200}.{k % 250}.{k % 500 // 250}"),
    "5,000 addresses": (500, lambda k: f"60.{k % 200}.{k % 5_000 // 20}.1"),
    "100,000 addresses": (500, lambda k: f"60.{k % 256}.{k // 256 % 256}.{k // 65_536 % 2}"),
    "new ones of 10 /16s": (500, lambda k: f"60.{k % 10}.{k // 10 % 256}.{k // 2_560}"),
    "new ones of 10 /16s, few": (10, lambda k: f"60.{k % 10}.{k // 10 % 256}.{k // 2_560}"),
    "one /48": (500, lambda k: f"2001:db8:1:{k % 65_536:x}::1"),
    "one /32": (500, lambda k: f"2001:db8:{k % 65_536:x}::1"),
    "one /32, few": (10, lambda k: f"2001:db8:{k % 65_536:x}::1"),
}
"""The addresses that a crowd comes from, and how many come at a time."""

BOTH = (TRIES, TRIES)


class GuessersTests(SynchronousTestCase):
    """Known users and newcomers log in while a crowd guesses."""

    def test_table(self) -> None:
        """All logins are in time, whichever the names, if the crowd is not everywhere."""
        for number, (where, (size, host)) in enumerate(HOSTS.items()):
            # Two of the names each, in turns: all with all would take long.
            for which, name in list(NAMES.items())[number % 2 :: 2]:
                with self.subTest(where=where, which=which):
                    self.assertEqual(successes(Crowd(size, host, name)), BOTH)

    def test_among_guessers(self) -> None:
        """It need not be another network than those of the crowd."""
        for which, name in NAMES.items():
            with self.subTest(which=which):
                crowd = Crowd(500, loopback, name)
                self.assertEqual(successes(crowd, fresh=loopback_user), BOTH)

    def test_hung_up(self) -> None:
        """Clients that hang up before their turn, and come again, keep nobody out."""
        for where, (size, host) in HOSTS.items():
            if size < 500:
                continue  # they are too few to keep anybody out
            with self.subTest(where=where):
                crowd = Crowd(100, host, NAMES["several"], patience=0.3)
                self.assertEqual(successes(crowd), BOTH)

    def test_thousand_networks(self) -> None:
        """It takes until the crowd has used its networks: here, a thousand /16s."""
        crowd = Crowd(
            500, lambda k: f"{60 + k % 4}.{k // 4 % 250}.{k // 1_000}.1", NAMES["several"]
        )
        self.assertEqual(successes(crowd, later=5.0), BOTH)

    def test_everywhere(self) -> None:
        """New addresses of all /16s keep newcomers out, by numbers alone; never known users."""
        for which, name in list(NAMES.items())[:2]:
            with self.subTest(which=which):
                known, _ = successes(Crowd(500, everywhere, name))
                self.assertEqual(known, TRIES)

    def test_everywhere_by_few(self) -> None:
        """Ten at a time leave newcomers a chance each time."""
        for which, name in NAMES.items():
            with self.subTest(which=which):
                known, fresh = successes(Crowd(10, everywhere, name))
                self.assertEqual(known, TRIES)
                self.assertGreaterEqual(fresh, 5)


class OwnAccountTests(SynchronousTestCase):
    """Users who log in without end, with the right password, keep nobody out."""

    def test_one_account(self) -> None:
        """One account, from few addresses or many."""
        for few in (lambda k: f"60.{k % 8}.5.1", HOSTS["500 addresses"][1]):
            self.assertEqual(successes(Crowd(500, few, lambda k: "mallory", right=True)), BOTH)

    def test_new_addresses(self) -> None:
        """One account, from ever new addresses of networks whose passwords were all right."""
        for networks in (10, 50):

            def host(number: int, networks: int = networks) -> str:
                return f"60.{number % networks}.{number // networks % 250}.{number // 12_500}"

            crowd = Crowd(networks, host, lambda k: "mallory", right=True)
            self.assertEqual(successes(crowd, later=10.0), BOTH)
            self.assertEqual(successes(crowd, later=20.0, pause=2.0), BOTH)

    def test_accounts(self) -> None:
        """Eight keep nobody out who logs in every two seconds; twenty keep no newcomer out."""
        host = HOSTS["500 addresses"][1]
        eight = Crowd(500, host, lambda k: f"user{k % 8}", right=True)
        self.assertEqual(successes(eight, pause=2.0), BOTH)
        twenty = Crowd(500, host, lambda k: f"user{k % 20}", right=True)
        _, fresh = successes(twenty)
        self.assertEqual(fresh, TRIES)

    def test_with_guessers(self) -> None:
        """Guessers may help them."""
        guessers = Crowd(500, HOSTS["5,000 addresses"][1], NAMES["several"])
        owners = Crowd(50, lambda k: f"70.1.{k % 50}.1", lambda k: "mallory", right=True)
        self.assertEqual(successes(guessers, owners), BOTH)


class NeighbourTests(SynchronousTestCase):
    """Who shares the user's address."""

    def test_other_names(self) -> None:
        """Its guesses of other names do not delay the user."""
        self.assertEqual(successes(Crowd(3, lambda k: KNOWN, NAMES["another's"])), BOTH)

    def test_same_network(self) -> None:
        """Those who share its /24 do not keep it waiting, if they guess from there alone."""
        guessers = Crowd(200, lambda k: f"9.1.1.{k % 200}", NAMES["several"])
        self.assertEqual(successes(guessers, fresh=lambda k: f"9.1.1.{200 + k}"), BOTH)

    def test_same_name(self) -> None:
        """Its guesses of the user's own name do: one source and one name have one delay."""
        known, fresh = successes(Crowd(3, lambda k: KNOWN, NAMES["the user's"]))
        self.assertLess(known, TRIES)
        self.assertEqual(fresh, TRIES)
