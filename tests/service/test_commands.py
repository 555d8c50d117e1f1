"""Commands of the operator's modules are imported; each failure is reported in one line."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.commands.registry import Commands
from twisted_net.commands.standard import acknowledge
from twisted_net.errors import ConfigError
from twisted_net.service.commands import configured_commands, configured_handler
from twisted_net.service.config import Config, TcpSettings, UdpSettings

MODULE = """
from __future__ import annotations

from twisted_net.commands.registry import Commands

commands = Commands()
numbers = [1]


@commands.command()
def double(number: int) -> int:
    return 2 * number
"""


async def fetch(url: str) -> Mapping[str, object]:
    """Stand in for the HTTP client."""
    return {"url": url}


HANDLER = """
from __future__ import annotations


def shout(data: bytes, source: tuple[str, int]) -> bytes:
    return data.upper()


def deaf(data: bytes) -> bytes:
    return data


async def slow(data: bytes, source: tuple[str, int]) -> bytes:
    return data


number = 7
"""


class ConfiguredCommandsTests(SynchronousTestCase):
    """:func:`configured_commands` imports modules from the path."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = Path(holder.name).resolve()
        self.patch(sys, "path", [*sys.path, str(self.directory)])
        self.patch(sys, "dont_write_bytecode", True)
        before = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - before])

    def write(self, name: str, text: str) -> None:
        """Write a module, or one in a package, to a directory on the path."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def names(self, *entries: str) -> set[str]:
        """Return the names of all commands, with these entries in the configuration."""
        return {command.name for command in configured_commands(Config(commands=entries), fetch)}

    def mistake(self, entry: str) -> str:
        """Return the mistake of an entry, without the common prefix."""
        error = self.assertRaises(ConfigError, self.names, entry)
        (line,) = error.mistakes
        self.assertTrue(line.startswith(f"commands: {entry}: "), line)
        self.assertNotIn("\n", line)
        return str(line.removeprefix(f"commands: {entry}: "))

    def test_standard_commands(self) -> None:
        """Without entries there are the standard commands, FETCH among them, and no fallback."""
        self.assertLess({"ECHO", "TIME", "STATS", "FETCH"}, self.names())
        self.assertIsNone(configured_commands(Config(), fetch).fallback)

    def test_fallback(self) -> None:
        """The fallback is the configured one."""
        config = Config(tcp=TcpSettings(fallback="acknowledge"))
        self.assertIs(configured_commands(config, fetch).fallback, acknowledge)

    def test_own_commands(self) -> None:
        """Modules, and modules in packages, are found on the path."""
        self.write("own_one.py", MODULE)
        self.write("own_pack/__init__.py", "")
        self.write("own_pack/two.py", MODULE.replace("double", "treble"))
        names = self.names("own_one:commands", "own_pack.two:commands")
        self.assertLess({"DOUBLE", "TREBLE", "ECHO"}, names)

    def test_entries_that_are_none(self) -> None:
        """An entry of another form is refused, with an example."""
        for entry in ("own_one", "own_one:", ":commands", "own one:commands", "1:x", "a..b:c"):
            with self.subTest(entry=entry):
                self.assertIn("module:name", self.mistake(entry))

    def test_module_that_is_not_there(self) -> None:
        """A missing module or package is reported with its own name."""
        self.assertEqual(self.mistake("own_none:commands"), "there is no module own_none")
        self.write("own_pack/__init__.py", "")
        self.assertEqual(self.mistake("own_pack.no:x"), "there is no module own_pack.no")
        self.assertEqual(self.mistake("own_none.no:x"), "there is no module own_none")

    def test_module_that_fails(self) -> None:
        """A module that raises is reported with the exception and its position."""
        cases = {
            "import own_missing": "ModuleNotFoundError: No module named 'own_missing'",
            "\n1 / 0": "ZeroDivisionError: division by zero",
            "\nraise KeyError": "KeyError",
            "raise ValueError('two\\nlines')": "ValueError: two lines",
            "raise ModuleNotFoundError": "ModuleNotFoundError",
            "\nimport sys; sys.exit()": "it ends the process (SystemExit)",
            "\nimport sys; sys.exit(0)": "it ends the process (SystemExit: 0)",
            "raise SystemExit('no licence')": "it ends the process (SystemExit: no licence)",
            "raise KeyboardInterrupt": "KeyboardInterrupt",
            "raise GeneratorExit": "GeneratorExit",
            "\nraise type('Odd', (BaseException,), {})": "own_bad10.Odd",
            "\nexit()": "it ends the process (SystemExit: None)",
            "raise BaseExceptionGroup('two', [SystemExit(1)])": "BaseExceptionGroup: two",
        }
        for number, (text, what) in enumerate(cases.items()):
            with self.subTest(text=text):
                self.write(f"own_bad{number}.py", text)
                mistake = self.mistake(f"own_bad{number}:commands")
                self.assertIn(f"cannot be imported: {what}", mistake)
                line = 1 + text.count("\n", 0, 1)
                self.assertTrue(mistake.endswith(f"own_bad{number}.py, line {line})"), mistake)

    def test_name_that_fails(self) -> None:
        """A module that raises when it is asked for the name is reported so, too."""
        for text in ("def __getattr__(name):\n    1 / 0", "def __getattr__(name):\n    exit(3)"):
            with self.subTest(text=text):
                self.write("own_lazy.py", text)
                sys.modules.pop("own_lazy", None)
                mistake = self.mistake("own_lazy:commands")
                self.assertTrue(mistake.startswith("commands cannot be read: "), mistake)
                self.assertTrue(mistake.endswith("own_lazy.py, line 2)"), mistake)

    def test_module_that_is_no_python(self) -> None:
        """A syntax error is reported with its own position."""
        self.write("own_broken.py", "x = 1\ndef\n")
        mistake = self.mistake("own_broken:commands")
        self.assertIn("SyntaxError: ", mistake)
        self.assertTrue(mistake.endswith("own_broken.py, line 2)"), mistake)

    def test_name_that_is_not_there(self) -> None:
        """A missing name is reported with the most similar name of the module."""
        self.write("own_one.py", MODULE)
        self.assertEqual(
            self.mistake("own_one:comands"), "own_one has no comands; did you mean commands?"
        )
        self.assertEqual(self.mistake("own_one:zzz"), "own_one has no zzz")

    def test_datagram_handler(self) -> None:
        """``udp.handler`` names a function that takes a datagram and its source."""
        self.write("own_udp.py", HANDLER)
        handler = configured_handler(Config(udp=UdpSettings(handler="own_udp:shout")))
        assert handler is not None
        self.assertEqual(handler(b"a", ("192.0.2.1", 1)), b"A")
        self.assertIsNone(configured_handler(Config()))
        for name, mistake in (
            ("deaf", "is called with (data, source)"),
            ("slow", "neither async nor a generator"),
            ("number", "must be callable, not int"),
            ("nothing", "own_udp has no nothing"),
        ):
            config = Config(udp=UdpSettings(handler=f"own_udp:{name}"))
            error = self.assertRaises(ConfigError, configured_handler, config)
            self.assertIn(f"udp.handler: own_udp:{name}: ", str(error))
            self.assertIn(mistake, str(error))

    def test_something_else(self) -> None:
        """A value that is not a registry is reported with its type."""
        self.write("own_one.py", MODULE)
        self.assertEqual(
            self.mistake("own_one:numbers"),
            "numbers is of type list, "
            "neither twisted_net.commands.Commands nor twisted_net.service.Application",
        )

    def test_name_of_a_standard_command(self) -> None:
        """A command whose name is taken is refused."""
        self.write("own_one.py", MODULE.replace("double", "echo"))
        self.assertEqual(self.mistake("own_one:commands"), "there is a command ECHO already")

    def test_all_mistakes(self) -> None:
        """Each invalid entry is reported in a line of its own."""
        error = self.assertRaises(ConfigError, self.names, "x", "own_none:y")
        self.assertEqual(len(error.mistakes), 2)

    def test_registry_is_left_alone(self) -> None:
        """The operator's registry is copied: the standard commands are not added to it."""
        self.write("own_one.py", MODULE)
        self.names("own_one:commands")
        registry = sys.modules["own_one"].commands
        self.assertIsInstance(registry, Commands)
        self.assertEqual([command.name for command in registry], ["DOUBLE"])
