"""The code and the configurations of every page of the documentation are right."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.block_names import UNKNOWN, Instance, Names
from tests.rst_blocks import Block, blocks, language_of, pages
from twisted_net.commands import Commands
from twisted_net.errors import ConfigError
from twisted_net.service.config import load_config

ASSUMED = {
    **dict.fromkeys(("reactor", "factory", "url", "urls"), UNKNOWN),
    **dict.fromkeys(("my_checker", "current_customer"), UNKNOWN),
    "commands": Instance(Commands),
}
"""What the reader of a page has already, or is said to have."""


def mistakes_in(shown: list[Block]) -> list[str]:
    """Read a page's Python blocks, from its top, and return what is wrong with them."""
    names, mistakes = Names(ASSUMED), []
    for block in shown:
        names.read(block.text, str(block))
        if not block.included:  # The examples are run, and mypy reads them.
            mistakes += [f"{block}, {mistake}" for mistake in names.mistakes]
        names.mistakes.clear()
    return mistakes


class PagesTests(SynchronousTestCase):
    """Each block that a page shows is found, and checked."""

    def test_python(self) -> None:
        """Python compiles, and its names and arguments of this package are there."""
        mistakes, seen = [], set()
        for page in pages():
            shown = [block for block in blocks(page) if block.language == "python"]
            seen |= {page.stem for block in shown if not block.included}
            mistakes += mistakes_in(shown)
        self.assertEqual(mistakes, [])
        self.assertLessEqual(
            {"permissions", "fetching", "http", "coap", "dtls", "datagrams", "speed"}, seen
        )
        self.assertLessEqual({"README", "http-cache", "discovery", "embedding"}, seen)

    def test_toml(self) -> None:
        """Every configuration is one."""
        seen = set()
        for page in pages():
            for block in blocks(page):
                if block.language == "toml":
                    seen.add(page.stem)
                    try:
                        load_config((str(block), block.text), {}, {})
                    except ConfigError as error:
                        self.fail(f"{block}: {error}")
        self.assertLessEqual({"securing", "tls", "haproxy", "dtls", "http-cache"}, seen)


class NamesTests(SynchronousTestCase):
    """:class:`Names` sees what is wrong with code that is shown."""

    def mistakes(self, *texts: str) -> list[str]:
        """Return the mistakes of a page with these blocks."""
        return mistakes_in([Block("page.rst", 1, "python", text) for text in texts])

    def test_mistakes(self) -> None:
        """A mistake is named with its place."""
        client = "from twisted_net.http import Client\nclient = Client(reactor)\n"
        server = "from twisted_net.coap import CoapClient\nasync with CoapClient(reactor) as c:\n"
        for text, mistake in (
            ("for x in\n", "line 1: invalid syntax"),
            ("from twisted_net.tcp import Factory", "line 1: module 'twisted_net.tcp' has no"),
            ("import twisted_net.tpc", "line 1: No module named 'twisted_net.tpc'"),
            ("Client(reactor)", "line 1: Client is not defined on this page"),
            (f"{client}client.fetch(url)", "line 3: Client has no attribute fetch"),
            (f"{client}client.get()", "line 3: Client.get: missing a required argument: 'url'"),
            (f"{client}await client.gather(urls, most=2)", "line 3: Client.gather: got an unexp"),
            (f"{client}[client.gat(u) for u in urls]", "line 3: Client has no attribute gat"),
            (f"{server}    (await c.get(url)).tex", "line 3: CoapResponse has no attribute tex"),
            ("@commands.command(admn=True)\ndef f() -> str: ...", "line 1: Commands.command: got"),
        ):
            (found,) = self.mistakes(text)
            self.assertTrue(found.startswith(f"page.rst:1, {mistake}"), found)

    def test_page(self) -> None:
        """A block may use what one before it has defined."""
        before = "from twisted_net.http import Client\nasync with Client(reactor) as client: ...\n"
        self.assertEqual(self.mistakes(before, "await client.get(url, json={})"), [])
        (found,) = self.mistakes(before, "await client.get(url, jsn={})")
        self.assertIn("unexpected keyword argument 'jsn'", found)


class BlocksTests(SynchronousTestCase):
    """The language of a block without one is that which it looks like."""

    def test_languages(self) -> None:
        """Statements and calls are Python, tables of lower-case names TOML."""
        for text in ("await client.get(url)\n", "x = 1\n", "listen(Server())\n", "@run\n"):
            self.assertEqual(language_of(text), "python")
        self.assertEqual(language_of("[tcp]\nport = 1\n"), "toml")
        self.assertEqual(language_of("[[listeners]]\n"), "toml")
        for text in ("[Unit]\nAfter=a\n", "$ twisted-net call localhost PING\n", 'new="-x y"\n'):
            self.assertEqual(language_of(text), "")
