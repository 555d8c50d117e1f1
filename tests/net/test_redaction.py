"""What peers send is shown to others without its secrets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.runaway import MEGABYTE, ended_if_runaway
from twisted_net.net.redaction import (
    MAX_SHOWN,
    redact_url,
    shown_arguments,
    shown_opening,
    shown_unknown,
    shown_word,
)


class RedactTests(SynchronousTestCase):
    """:func:`redact_url` hides secrets."""

    def test_userinfo(self) -> None:
        """User name and password become ``***``, also with an @ inside."""
        self.assertEqual(redact_url("http://u:p@ss@h/p"), "http://***@h/p")

    def test_parameters(self) -> None:
        """Parameters with names of secrets become ``***``; others are shown."""
        shown = redact_url(
            "http://h/?a=1&api_key=k&Token=t&monkey=m&X-Amz-Signature=s&access_token="
        )
        self.assertEqual(
            shown,
            "http://h/?a=1&api_key=***&Token=***&monkey=m&X-Amz-Signature=***&access_token=",
        )

    def test_whatever_the_scheme(self) -> None:
        """All of them are hidden, after anything that may be a scheme."""
        for scheme in ("http", "A1+.-", "7", "not a scheme", ""):
            with self.subTest(scheme=scheme):
                self.assertEqual(redact_url(f"{scheme}://u:p@h"), f"{scheme}://***@h")
        self.assertEqual(redact_url("a://u@h/b://v@i?c://w@j"), "a://***@h/b://***@i?c://***@j")
        self.assertEqual(redact_url("http://h/@p?@q#@r"), "http://h/@p?@q#@r")

    def test_without_a_scheme(self) -> None:
        """They are hidden too where the scheme, or a slash after it, has been forgotten."""
        for start in ("", "/", "//", "///", "http:/", "HTTP:/", "http:///", " http://"):
            with self.subTest(start=start):
                self.assertEqual(redact_url(f"{start}u:p@h/a"), f"{start}***@h/a")
        for url in ("h/@p", "/p/@q", "//h/@p", "http:/h/@p", "h?@q", "h#@r"):
            self.assertEqual(redact_url(url), url)

    def test_slash_in_the_password(self) -> None:
        """A password with a slash that is not encoded is hidden: it cannot be a port."""
        for start in ("", "//", "http:/", "http://", "http:///"):
            with self.subTest(start=start):
                self.assertEqual(redact_url(f"{start}u:p/w/x@h/a"), f"{start}***@h/a")
        for url in ("http://h:80/@p", "http://h:/@p", "http://[::1]/@p", "http://h/a:b@p"):
            self.assertEqual(redact_url(url), url)
        self.assertEqual(redact_url("http://u:p@h/p/@q"), "http://***@h/p/@q")

    def test_query_in_the_password(self) -> None:
        """So is one with a question mark or a hash, which would end the host."""
        for mark in "?#":
            self.assertEqual(redact_url(f"http://u:p{mark}w@h/a"), "http://***@h/a")
            self.assertEqual(redact_url(f"u:p{mark}w/x@h/a"), "***@h/a")
            for url in (f"http://h:80{mark}@p", f"http://h:{mark}@p", f"http://h{mark}a:b@p"):
                self.assertEqual(redact_url(url), url)

    def test_percent_encoded(self) -> None:
        """A secret is found whose marks are encoded, as often as they like; it is shown decoded."""
        for url, shown in (
            ("http://h/?to=http%3A%2F%2Fu%3Ap%40i", "http://h/?to=http://***@i"),
            ("http://h/?to=http%253a%252f%252fu%253Ap%2540i", "http://h/?to=http://***@i"),
            ("http://h/?to=%2Fx%3Ftoken%3Ds%26a", "http://h/?to=/x?token=***&a"),
            ("http://h/?%2574oken=s", "http://h/?token=***"),
            ("http://h/?token%3Ds", "http://h/?token=***"),
            ("http://u%3Ap%40h/", "http://***@h/"),
            ("http%3A%2F%2Fu%3Ap%40h/", "http://***@h/"),
            # What is encoded within a secret does not end it.
            ("http://h/?token=a%26b%3Dc", "http://h/?token=***"),
            ("http://u:p%2Fp%40@h/", "http://***@h/"),
        ):
            with self.subTest(url=url):
                self.assertEqual(redact_url(url), shown)
        for long in ("p" * 5000, "p%25" * 1000):
            self.assertNotIn("pp", redact_url(f"http%3A%2F%2Fu%3Ap{long}%40h"))
            self.assertNotIn("pp", redact_url(f"http://h/?to=http%3A%2F%2Fu%3Ap{long}%40h"))
        for url in ("http://h/?a=b%26c%3Dd", "http://h/%25%7F%20%0A%zz%", "http://h/?to=a%40b"):
            self.assertEqual(redact_url(url), url)

    def test_linear(self) -> None:
        """A megabyte of any text takes time linear in its length."""
        for part in (
            *("a", "a.", ":", "/", "7", "a:b/", "a://", "://@", "&key", "&key=", "?token=@"),
            *("%", "%25", "25", "%3D", "%2525", "aA", "a?", "a:b?", "?@"),
        ):
            with self.subTest(part=part), ended_if_runaway():
                shown = redact_url("http://" + part * (MEGABYTE // len(part)))
                self.assertLessEqual(len(shown), 201)

    def test_length(self) -> None:
        """A long URL is cut."""
        self.assertEqual(redact_url("http://h/" + "x" * 300), "http://h/" + "x" * 191 + "…")
        self.assertEqual(redact_url("http://h/" + "x" * 191), "http://h/" + "x" * 191)

    def test_every_secret_parameter(self) -> None:
        """Each name of a secret is recognised, in upper and lower case."""
        for name in (
            *("access_token", "api_key", "api-key", "apikey", "auth", "code", "key", "password"),
            *("passwd", "pwd", "secret", "sig", "signature", "token", "x-amz-signature"),
            *("x-amz-credential", "x-amz-security-token"),
        ):
            for spelt in (name, name.upper()):
                self.assertEqual(redact_url(f"http://h/?{spelt}=s#f"), f"http://h/?{spelt}=***#f")

    def test_spellings_of_parameters(self) -> None:
        """Names with a prefix, in other styles or percent-encoded are secret, too."""
        for name in (
            *("refresh_token", "clientSecret", "client-secret", "user[password]", "%74oken"),
            *("PHPSESSID", "jwt", "aws.secret_key", "X-Api-Key", "public_key", "Authorization"),
            *("userPwd", "dbPass", "authKey", "authCode", "token1", "token[0]", "tokens[]token2"),
            *("pw", "pin", "passcode", "ticket", "session", "bearer", "assertion", "SAMLResponse"),
            *("tokens", "access_tokens", "tokens[0]", "passwords", "apiKeys", "keys", "max_tokens"),
            *("credentials", "cookies", "sigs"),
        ):
            with self.subTest(name=name):
                self.assertEqual(
                    redact_url(f"http://h/?a=b&{name}=s&c=d"), f"http://h/?a=b&{name}=***&c=d"
                )
        for name in ("monkey", "compass", "author", "secretary", "design", "codec", "pinned"):
            with self.subTest(name=name):
                self.assertEqual(redact_url(f"http://h/?{name}=s"), f"http://h/?{name}=s")

    def test_how_many(self) -> None:
        """Several secrets are secret; how many there are is not."""
        for value in ("5", "4096&a=b", "5#f"):
            url = f"http://h/?max_tokens={value}"
            self.assertEqual(redact_url(url), url)
        for value in ("5a", "5.x", "5%41", "a5", "5-a"):
            self.assertEqual(redact_url(f"http://h/?tokens={value}"), "http://h/?tokens=***")

    def test_places_of_parameters(self) -> None:
        """They are found in a fragment, behind a semicolon and in a URL within a parameter."""
        self.assertEqual(
            redact_url("http://h/#access_token=s&a=b"), "http://h/#access_token=***&a=b"
        )
        self.assertEqual(redact_url("http://h/?a=b;token=s;t"), "http://h/?a=b;token=***")
        self.assertEqual(
            redact_url("http://h/?to=http://i/?token=s"), "http://h/?to=http://i/?token=***"
        )
        self.assertEqual(redact_url("http://h/?token=a&token=b"), "http://h/?token=***&token=***")


class ShownWordTests(SynchronousTestCase):
    """:func:`shown_word` shows at most four characters of what may be a secret."""

    def test_lengths(self) -> None:
        """A short word is whole; of a longer one at most half is shown, and four characters."""
        for word, shown in (
            *(("", ""), ("a", "a"), ("ATUH", "ATUH"), ("abcde", "ab…"), ("abcdefg", "abc…")),
            *(("abcdefgh", "abcd…"), ("abcdefghi", "abcd…"), ("é" * 5000, "éééé…")),
        ):
            self.assertEqual(shown_word(word), shown)

    def test_line(self) -> None:
        """Nothing is shown of what follows it."""
        self.assertEqual(shown_unknown("sk_live_abcdef"), "sk_l…")
        self.assertEqual(shown_unknown(" ATUH ann pw"), "ATUH …")
        self.assertEqual(shown_unknown(" \t"), "")


class ShownArgumentsTests(SynchronousTestCase):
    """:func:`shown_arguments` leaves secrets out."""

    def shown(self, text: str) -> str:
        """Show arguments, where LOGIN is a command whose own are secret."""
        return shown_arguments(text, ("LOGIN", "AUTH"))

    def test_harmless(self) -> None:
        """Other text is shown as it is, to a length."""
        for text in (
            *("", "a b", "  a\tb ", "ann@example.org", "user ann@example.org", "{'a': [1, 2]}"),
            *("10:30", "a:b", "a=b", '{"a":"b","code":7,"key":"k"}', "http://h:80/@p", "::1"),
            *("tokens: 3", "max_tokens=5", "my secrets", "the password", "login", "a basic"),
            *("http://h/a?b=c#d", "/a/b", "x" * MAX_SHOWN, "log.in x", "relogin x"),
        ):
            with self.subTest(text=text):
                self.assertEqual(self.shown(text), text)
        self.assertEqual(self.shown("x" * 201), "x" * 200 + "…")

    def test_urls(self) -> None:
        """URLs are redacted wherever they stand."""
        for text, shown in (
            ("http://u:p@h/?token=t", "http://***@h/?token=***"),
            ("a http://u:p@h b", "a http://***@h b"),
            ('"http://u:p@h/a"', '"http://***@h/a"'),
            ('"http://u:p w@h/a"', '"http://***@h/a"'),
            ("u:p@h", "***@h"),
            ("//u:p@h", "//***@h"),
            ("t@h/a", "***@h/a"),
            ("http:/u:p@h", "http:/***@h"),
            ("http://u:p/w@h/a", "http://***@h/a"),
            ("see http://u:p/w@h/a http://u:p/w@h/b", "see http://***@h/a http://***@h/b"),
            ('{"url":"http://u:p@h"}', '***@h"}'),
            ("ttl http://h/?api_key=a b&c=d", "ttl http://h/?api_key=***&c=d"),
            ("a://u:p@h/?b=c://d:e@f", "a://***@h/?b=c://***@f"),
            # As JSON may write it.
            (r'{"url":"http:\/\/u:p@h","a":"b"}', '***@h","a":"b"}'),
            (r'"http:\/\/u:p w@h\/a"', '"http://***@h/a"'),
        ):
            with self.subTest(text=text):
                self.assertEqual(self.shown(text), shown)

    def test_names_of_secrets(self) -> None:
        """Nothing is shown behind what is called a secret."""
        for text in (
            *("token=s s", "password: s", "Authorization: Bearer s", "Cookie: a=s; b=s", "pwd:s"),
            *('{"password":"s"}', "{'api_key': 's'}", '"{\\"client_secret\\":\\"s\\"}"', "jwt = s"),
            *("--password s", "--api-key s", "Bearer s", "a bearer s", "Basic s", "X-Auth: s"),
            *("a,token=s", "accessToken:s", "LOGIN s", "a login s s", '"login" "s"', "LOGIN,s"),
            *('["LOGIN","s"]', "secret=\t s", "auth s", "user[password]=s", "to%6ben=s"),
            *("--password=s", "-token=s", ".token=s", "%74oken=s", "token%3Ds", "dbPwd=s"),
            *("<password>s</password>", "password->s", "password => s", "password\uff1as"),
            *("Bearer:s", "API key: s", "private  key=s", "--db-password = s", "token2: s"),
            *('{"tokens":["s"]}', "passwords: s", "max_tokens=s", "token[]=s", "tokens[0][1]=s"),
            *(r'{"\u0070assword":"s"}', r'{"p\u0061ss\u0077ord":"s"}', r"\\u0074oken=s"),
            *(r'"{\"\\u0070assword\":\"s\"}"', r'{"\u0074\u006Fken\u0022:"s"}'),
        ):
            with self.subTest(text=text):
                shown = self.shown(text)
                self.assertTrue(shown.endswith(" …"), shown)
                self.assertNotRegex(shown, r"\bs\b")

    def test_nothing_behind(self) -> None:
        """A name behind which there is nothing is shown as it is."""
        for text in ("token=", "password: ", "LOGIN", '"login"', '{"secret":""}'):
            self.assertEqual(self.shown(text), text)

    def test_cut(self) -> None:
        """A user name and a password are hidden that are longer than what is looked at."""
        shown = self.shown("a http://u:" + "p" * 5000 + "@h")
        self.assertNotIn("p" * 5, shown)
        self.assertEqual(self.shown("http://h/" + "p" * 5000), "http://h/" + "p" * 191 + "…")

    def test_linear(self) -> None:
        """A megabyte of any text takes little time."""
        for part in (
            *("\\", "\\u", "\\u0", "\\u0041", "\\/", "a[", "a[]", "[a]", "tokens=", "s=1 "),
            *("a", "a ", ":", "/", "@", "://", "://@", "&key=", "a=", "--a", "bearer ", '"', "\\"),
            *("login", "login ", "login:", "a%", "a:b/", " @", "[", "é", "{", "&a", "=&"),
            *("-", "-a", ".", "%25", "%3D", "api ", "api\t \t", "aA", "a?", "a:b?", " ", "\t"),
        ):
            with self.subTest(part=part), ended_if_runaway():
                text = part * (MEGABYTE // len(part))
                self.assertLessEqual(len(self.shown(text)), MAX_SHOWN + 2)
                shown_unknown(text)
                shown_opening(text.encode())

    @given(st.text(), st.text(alphabet="ab:/@?#&=; \"'{", max_size=30))
    def test_no_password(self, before: str, after: str) -> None:
        """Whatever stands before and behind it, a URL's password is never shown."""
        self.assertNotIn("hunter2", self.shown(f"{before} http://ann:hunter2@h/{after}"))
        self.assertNotIn("hunter2", self.shown(f"{before} http://h/?a&token=hunter2{after}"))
        self.assertNotIn("hunter2", redact_url(f"http://ann:hunter2@h/{after}"))


class ShownOpeningTests(SynchronousTestCase):
    """:func:`shown_opening` shows which protocol a client speaks, and nothing of its secrets."""

    def test_lines(self) -> None:
        """Of a request the path is shown, of a field the name, of anything else little."""
        for line, shown in (
            (b"GET / HTTP/1.1", "GET / HTTP/1.1"),
            (b"POST /api/v1/users HTTP/1.0\r", "POST /api/v1/users HTTP/1.0"),
            (b"GET /\xff HTTP/1.1", "GET /\\xff HTTP/1.1"),
            (b"GET /a?access_token=s HTTP/1.1", "GET /a… HTTP/1.1"),
            (b"GET /a;s=s#s HTTP/1.1", "GET /a… HTTP/1.1"),
            (b"GET http://u:s@h/a HTTP/1.1", "GET http://***@h/a HTTP/1.1"),
            (b"CONNECT u:s@h:1 HTTP/1.1", "CONNECT ***@h:1 HTTP/1.1"),
            (b"GET /bot123456789:ABCDEFGHIJKLM/send HTTP/1.1", "GET /bot1…/send HTTP/1.1"),
            (b"INVITE sip:u:s@h SIP/2.0", "INVITE ***@h SIP/2.0"),
            (b"GET /" + b"a/" * 500, "GET /" + "a/" * 31 + "a…"),
            (b"Host: example.org", "Host: …"),
            (b"Authorization: Basic s", "Authorization: …"),
            (b"cookie:", "cookie:"),
            (b"SSH-2.0-OpenSSH_9.2", "SSH-…"),
            (b"\x16\x03\x01\x02\x00\x01", "\x16\x03\x01…"),
            (b"PASS secret", "PASS …"),
            (b"EHLO mail.example.org", "EHLO …"),
            (b"s" * 700 + b": s", "ssss… …"),
            (b"", ""),
        ):
            with self.subTest(line=line[:60]):
                self.assertEqual(shown_opening(line), shown)
