"""A hash matches its password only, and its parameters are bounded."""

from __future__ import annotations

import builtins
from base64 import b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.auth import passwords
from twisted_net.auth.passwords import MAX_PASSWORD, check_hash, hash_password, verify

SALT = bytes(range(16))
CHEAP = 4


class ScryptTests(SynchronousTestCase):
    """scrypt, from the standard library."""

    def test_known(self) -> None:
        """The second test vector of RFC 7914 §12."""
        hashed = (
            "$scrypt$ln=10,r=8,p=16$TmFDbA$"
            "/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA"
        )
        self.assertTrue(verify(hashed, "password"))
        self.assertFalse(verify(hashed, "Password"))

    def test_round_trip(self) -> None:
        """A hash matches its password only, and contains the parameters."""
        hashed = hash_password("pässword", SALT, cost=CHEAP)
        self.assertTrue(hashed.startswith("$scrypt$ln=4,r=8,p=3$AAECAwQFBgcICQoLDA0ODw$"))
        check_hash(hashed)
        self.assertTrue(verify(hashed, "pässword"))
        for other in ("passwords", "", "pässword "):
            self.assertFalse(verify(hashed, other))

    def test_usual_cost(self) -> None:
        """The default is 2**15, r = 8, p = 3, within our limits and those of OpenSSL."""
        hashed = hash_password("x", SALT)
        self.assertTrue(hashed.startswith("$scrypt$ln=15,r=8,p=3$"))
        self.assertTrue(verify(hashed, "x"))

    def test_length(self) -> None:
        """Empty and too long passwords cannot be hashed; a longer one is wrong."""
        longest = "x" * MAX_PASSWORD
        hashed = hash_password(longest, SALT, cost=CHEAP)
        self.assertTrue(verify(hashed, longest))
        self.assertFalse(verify(hashed, longest + "x"))
        for password in ("", longest + "x"):
            self.assertRaises(ValueError, hash_password, password, SALT)

    def test_too_long_is_unread(self) -> None:
        """A password over the limit is wrong without hashing, even if it is the right one."""
        hashed = hash_password("secret", SALT, cost=CHEAP)
        self.patch(passwords, "MAX_PASSWORD", 5)
        self.assertFalse(verify(hashed, "secret"))

    def test_length_of_the_digest(self) -> None:
        """The digest in a hash has 16 to 64 bytes."""
        head = hash_password("x", SALT, cost=CHEAP).rpartition("$")[0]
        for size, good in ((15, False), (16, True), (64, True), (65, False)):
            hashed = f"{head}${b64encode(bytes(size)).decode().rstrip('=')}"
            if good:
                self.assertFalse(verify(hashed, "x"))
            else:
                self.assertRaises(ValueError, check_hash, hashed)

    def test_no_hash(self) -> None:
        """Invalid hashes, and parameters out of bounds, are refused without hashing."""
        good = hash_password("x", SALT, cost=CHEAP)
        for hashed in (
            "",
            "x",
            good + "\n",
            good.replace("ln=4", "ln=x"),
            good.replace("ln=4", "ln=0"),
            good.replace("ln=4", "ln=18"),
            good.replace("ln=4", "ln=99"),
            good.replace("r=8", "r=0"),
            good.replace("p=3", "p=0"),
            good[:-30],
            good.rpartition("$")[0] + "$A",
            "$argon2id$nonsense",
            "$argon2id$v=19$m=1048576,t=3,p=4$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
            "$argon2id$v=19$m=8,t=65,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo",
        ):
            self.assertRaises(ValueError, check_hash, hashed)
            self.assertRaises(ValueError, verify, hashed, "x")


class Argon2Tests(SynchronousTestCase):
    """argon2id, from the extra ``auth``."""

    def test_round_trip(self) -> None:
        """A hash matches its password only."""
        hashed = hash_password("secret", SALT, "argon2")
        self.assertTrue(hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$"))
        check_hash(hashed)
        self.assertTrue(verify(hashed, "secret"))
        self.assertFalse(verify(hashed, "Secret"))

    def test_not_installed(self) -> None:
        """Without the extra, hashing and verifying raise ImportError."""
        hashed = hash_password("secret", SALT, "argon2")
        real = builtins.__import__

        def missing(name: str, *rest: Any) -> Any:  # Any: as the original's
            if name.partition(".")[0] == "argon2":
                raise ImportError("no argon2")
            return real(name, *rest)

        self.patch(builtins, "__import__", missing)
        self.assertRaises(ImportError, hash_password, "secret", SALT, "argon2")
        self.assertRaises(ImportError, check_hash, hashed)
