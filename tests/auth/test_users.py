"""Permissions say no where nothing says yes; a users file is read whole or not at all."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.auth.users import AuthSettings, Permissions, User, Users, hash_token, read_users
from twisted_net.errors import AuthRequired, CommandError, ConfigError, NotPermitted

SCRYPT = "$scrypt$ln=4,r=8,p=1$c2FsdA$aGFzaA"


def allows(permissions: Permissions, name: str, admin: bool = False) -> bool:
    """Whether a command is permitted."""
    try:
        permissions.check_command(name, admin)
    except NotPermitted:
        return False
    return True


class CommandPermissionsTests(SynchronousTestCase):
    """Patterns are read in order; the last that fits decides."""

    def test_patterns(self) -> None:
        """Names, beginnings, categories and their denials do what they say."""
        for patterns, allowed in (
            ((), ""),
            (("*",), "ECHO KILL SHOP.BUY SHOP.SELL"),
            (("echo",), "ECHO"),
            (("shop.*",), "SHOP.BUY SHOP.SELL"),
            (("*", "-@admin"), "ECHO SHOP.BUY SHOP.SELL"),
            (("@admin",), "KILL"),
            (("*", "-shop.*", "shop.buy"), "ECHO KILL SHOP.BUY"),
            (("echo", "-*"), ""),
            (("EC",), ""),
        ):
            permissions = Permissions("ann", User(commands=patterns))
            found = [
                name
                for name in ("ECHO", "KILL", "SHOP.BUY", "SHOP.SELL")
                if allows(permissions, name, admin=name == "KILL")
            ]
            self.assertEqual(" ".join(found), allowed, patterns)

    def test_default(self) -> None:
        """A user without patterns may use all but administrative commands."""
        permissions = Permissions("ann", User())
        self.assertTrue(allows(permissions, "ECHO"))
        self.assertFalse(allows(permissions, "KILL", admin=True))

    def test_verdict_is_kept(self) -> None:
        """The same question gets the same answer; unknown names are not kept."""
        permissions = Permissions("ann", User(commands=("ECHO",)))
        for _ in range(2):
            self.assertTrue(allows(permissions, "ECHO"))
            self.assertFalse(allows(permissions, "PING"))
        for i in range(100):
            self.assertRaises(
                NotPermitted, permissions.check_command, f"X{i}", admin=False, known=False
            )
        self.assertEqual(permissions._known.keys(), {"AUTH", "ECHO", "PING"})

    def test_not_logged_in(self) -> None:
        """Who has not logged in is told to do so."""
        permissions = Permissions(None, User(commands=("PING",), publish=(), subscribe=()))
        permissions.check_command("PING", admin=False)
        self.assertRaises(AuthRequired, permissions.check_command, "ECHO", admin=False)
        self.assertRaises(AuthRequired, permissions.check_publish, "news")
        self.assertRaises(AuthRequired, permissions.check_subscribe, "news")

    def test_patterns_that_are_none(self) -> None:
        """A pattern with a star elsewhere, white space or nothing in it is refused."""
        for pattern in ("", "-", "a*b", "**", "--a", "a b", "*a"):
            error = self.assertRaises(ValueError, User, commands=(pattern,))
            self.assertIn(repr(pattern), str(error))


class TopicPermissionsTests(SynchronousTestCase):
    """A subscription is permitted where every topic is that it may bring."""

    def permitted(self, patterns: tuple[str, ...], topic: str) -> bool:
        """Whether a subscription is permitted."""
        permissions = Permissions("ann", User(subscribe=patterns))
        try:
            permissions.check_subscribe(topic)
        except CommandError:
            return False
        return True

    def test_patterns(self) -> None:
        """Exact topics, beginnings and denials, against topics and wildcards."""
        for patterns, topic, expected in (
            (("news",), "news", True),
            (("news",), "news.de", False),
            (("news",), "new*", False),
            (("news",), "new?", False),
            (("new",), "new?", False),
            (("new*",), "new?", True),
            (("*", "-news"), "new?", False),
            (("*", "-news"), "new", True),
            (("*", "-news.de"), "news.", True),
            (("news.*",), "news.de", True),
            (("news.*",), "news.>", True),
            (("news.*",), "news.*.today", True),
            (("news.*",), "news", False),
            (("news.*",), "*", False),
            (("*",), ">", True),
            (("*", "-secret.*"), "news.*", True),
            (("*", "-secret.*"), ">", False),
            (("*", "-secret.*"), "se*", False),
            (("*", "-secret.*"), "*.plans", False),
            (("*", "-secret.*"), "secret.*.b", False),
            (("*", "-secret.*", "secret.party.*"), "secret.party.>", True),
            (("*", "-secret.*", "secret.party.*"), "secret.>", False),
            (("*", "-secret"), "secret", False),
            (("*", "-secret"), "secret.>", True),
            (("*", "-broadcast"), "broadcast", False),
            (("*", "-broadcast"), ">", True),
            (("*", "-broadcast*"), ">", False),
            (("broadcast",), ">", False),
        ):
            self.assertEqual(self.permitted(patterns, topic), expected, (patterns, topic))

    def test_publish(self) -> None:
        """Publishing has patterns of its own."""
        permissions = Permissions("ann", User(publish=("news.*",), subscribe=()))
        permissions.check_publish("news.de")
        self.assertRaises(NotPermitted, permissions.check_publish, "olds")
        self.assertRaises(NotPermitted, permissions.check_subscribe, "news.de")

    @given(
        st.lists(st.from_regex(r"-?[ab.]{1,3}\*?|-?\*", fullmatch=True), max_size=5),
        st.text("ab.", max_size=4),
        st.text("ab.", max_size=4),
    )
    def test_no_wildcard_brings_more(self, patterns: list[str], start: str, rest: str) -> None:
        """What a permitted wildcard could bring is permitted by itself."""
        if self.permitted(tuple(patterns), start + "*"):
            self.assertTrue(self.permitted(tuple(patterns), start + rest))


class UsersTests(SynchronousTestCase):
    """:class:`Users` finds a user by name or token."""

    def setUp(self) -> None:
        self.users = Users(
            {
                "ann": User(tokens=(hash_token("one"), hash_token("two"))),
                "bob": User(tokens=(hash_token("three"),), commands=("PING",)),
            }
        )

    def test_tokens(self) -> None:
        """Each token names its user, any other names nobody."""
        names = [self.users.named_by_token(t) for t in ("one", "two", "three", "four", "")]
        self.assertEqual(names, ["ann", "ann", "bob", None, None])

    def test_many_tokens(self) -> None:
        """However many there are, a wrong one is not compared with each."""
        compared = []
        real = hmac.compare_digest

        def compare(known: str, given: str) -> bool:
            compared.append(known)
            return real(known, given)

        self.patch(hmac, "compare_digest", compare)
        users = Users({f"u{i}": User(tokens=(hash_token(str(i)),)) for i in range(100)})
        self.assertIsNone(users.named_by_token("wrong"))
        self.assertEqual(users.named_by_token("99"), "u99")
        self.assertLess(len(compared), 3)

    def test_get(self) -> None:
        """A user is found by its name alone."""
        self.assertEqual(len(self.users), 2)
        self.assertEqual(
            self.users.get("bob"), User(tokens=(hash_token("three"),), commands=("PING",))
        )
        self.assertIsNone(self.users.get("BOB"))

    def test_permissions(self) -> None:
        """A user has its own; who is not listed, or in another case, has none."""
        bob = self.users.permissions("bob")
        assert bob is not None
        self.assertFalse(allows(bob, "ECHO"))
        self.assertIs(self.users.permissions("bob"), bob)
        for name in ("eve", "BOB", "Bob", "bob ", ""):
            self.assertIsNone(self.users.permissions(name), name)

    def test_unlisted(self) -> None:
        """Where it is asked for, one known elsewhere has those of ``default``, or the usual."""
        self.assertIs(self.users.unlisted("bob"), self.users.permissions("bob"))
        self.assertTrue(allows(self.users.unlisted("eve"), "ECHO"))
        users = Users({"default": User(commands=("TIME",))})
        eve = users.unlisted("eve")
        self.assertFalse(allows(eve, "ECHO"))
        self.assertEqual(eve.name, "eve")
        self.assertIs(users.unlisted("eve"), eve)

    def test_compared_before(self) -> None:
        """To compare changes nothing; what was compared is replaced without another look."""
        before = Users({"ann": User(commands=("*",)), "bob": User(), "eve": User(commands=("a",))})
        ann, bob, eve = map(before.permissions, ("ann", "bob", "eve"))
        assert ann is not None
        assert bob is not None
        after = Users(
            {"ann": User(commands=("PING",), max_connections=3), "eve": User(commands=("a",))}
        )
        after.compare(before)
        self.assertTrue(allows(ann, "ECHO"))
        self.assertFalse(bob.withdrawn)
        self.patch(Users, "compare", lambda *_: self.fail("it was compared already"))
        self.assertEqual(after.replace(before), [ann, bob])
        self.assertIs(after.permissions("ann"), ann)
        self.assertIs(after.permissions("eve"), eve)
        self.assertEqual((allows(ann, "ECHO"), allows(ann, "PING")), (False, True))
        self.assertEqual(ann.max_connections, 3)
        self.assertTrue(bob.withdrawn)
        self.assertRaises(AuthRequired, bob.check_command, "PING", False)
        self.assertIsNone(after.permissions("bob"))

    def test_compared_with_others(self) -> None:
        """What was compared with other users is compared again."""
        first, second = Users({"ann": User()}), Users({"ann": User(), "bob": User()})
        bob = second.permissions("bob")
        after = Users({"ann": User()})
        after.compare(first)
        self.assertEqual(after.replace(second), [bob])

    def test_default_is_no_user(self) -> None:
        """The record ``default`` is a pattern for others; nobody is that user."""
        self.assertIsNone(Users({"default": User(commands=("*",))}).permissions("default"))


class ReadUsersTests(SynchronousTestCase):
    """:func:`read_users` reads TOML, a table for each user."""

    def mistakes(self, text: str) -> list[str]:
        """Give the mistakes in a file."""
        error: ConfigError = self.assertRaises(ConfigError, read_users, text, "users.toml")
        return error.mistakes

    def test_whole(self) -> None:
        """Every field is read; what is left out has its default."""
        text = f"""
            [ann]
            password = "{SCRYPT}"
            tokens = ["{"0" * 64}"]
            commands = ["*"]
            publish = ["a.*"]
            subscribe = []
            max_connections = 3
            ["bob@example.org"]
        """
        users = read_users(text, "users.toml")
        self.assertEqual(
            users.get("ann"),
            User(
                password=SCRYPT,
                tokens=("0" * 64,),
                commands=("*",),
                publish=("a.*",),
                subscribe=(),
                max_connections=3,
            ),
        )
        self.assertEqual(users.get("bob@example.org"), User())

    def test_mistakes(self) -> None:
        """All mistakes come at once, each with its user, and none repeats a secret."""
        secret = "open-sesame"
        text = f"""
            [ann]
            password = "{secret}"
            [bob]
            tokens = ["{secret}"]
            [eve]
            commands = ["a*b"]
            [dan]
            pasword = "{secret}"
            ["no name"]
        """
        mistakes = self.mistakes(text)
        self.assertEqual(len(mistakes), 5)
        self.assertNotIn(secret, "\n".join(mistakes))
        for mistake, words in zip(
            mistakes, ("user ann", "user bob", "'a*b'", "pasword", "'no name'"), strict=True
        ):
            self.assertTrue(mistake.startswith("users.toml: "), mistake)
            self.assertIn(words, mistake)

    def test_shared_token(self) -> None:
        """A token is that of one user: of two, a client might be the one or the other."""
        one, two = hash_token("one"), hash_token("two")
        text = f'[ann]\ntokens = ["{one}"]\n[bob]\ntokens = ["{two}", "{one}"]\n[eve]'
        self.assertEqual(self.mistakes(text), ["users.toml: user bob: a token is also that of ann"])
        self.assertEqual(len(read_users(f'[ann]\ntokens = ["{one}", "{one}"]', "users.toml")), 1)

    def test_longest_name(self) -> None:
        """A name has 128 characters at most."""
        self.assertEqual(len(read_users(f'["{"a" * 128}"]', "users.toml")), 1)
        (mistake,) = self.mistakes(f'["{"a" * 100_000}"]')
        self.assertIn("is no name for a user", mistake)
        self.assertLess(len(mistake), 300)

    def test_not_toml(self) -> None:
        """A file that is no TOML is not shown in part: what stands there may be a secret."""
        self.assertEqual(self.mistakes('password = "open'), ["users.toml: this is not TOML"])

    def test_nobody(self) -> None:
        """A file without users is a mistake: the server would be closed to all."""
        self.assertEqual(self.mistakes("# later"), ["users.toml: there is no user in it"])

    def test_not_a_table(self) -> None:
        """A user that is no table is a mistake."""
        self.assertEqual(len(self.mistakes("ann = 1")), 1)


class AuthSettingsTests(SynchronousTestCase):
    """A login is required once there is somebody who could."""

    def test_required(self) -> None:
        """A users file or a checker is enough; by default there is neither."""
        self.assertFalse(AuthSettings().required)
        self.assertTrue(AuthSettings(users="users.toml").required)
        self.assertTrue(AuthSettings(checkers=("file:x",)).required)
