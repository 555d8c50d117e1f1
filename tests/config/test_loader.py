"""Layers: every value in every spelling, every mistake in one line, and back to TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta
from msgspec import field as default
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.config.loader import Layers, Loaded, settings, to_toml
from twisted_net.config.record import Record
from twisted_net.errors import ConfigError


class Engine(Record, frozen=True):
    """Goes two levels deep."""

    power: Annotated[float, Meta(gt=0, description="kW")] = 75.0
    fuel: Literal["petrol", "diesel"] = "petrol"


class Car(Record, frozen=True):
    """Has one setting of each kind, and a rule that binds two of them."""

    doors: Annotated[int, Meta(ge=2, le=5, description="how many doors")] = 4
    engine: Engine = Engine()
    owner: Annotated[str, Meta(description="its\nowner")] | None = None
    seats: tuple[Annotated[int, Meta(ge=1)], ...] = (2, 3)
    stickers: tuple[str, ...] = ()
    extras: dict[str, str] = default(default_factory=dict)
    electric: bool = False
    price: int | None = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.electric and self.engine.fuel == "diesel":
            raise ValueError("an electric car burns no diesel")
        if "bad" in self.stickers:
            raise ValueError("Car.stickers: 'bad' will not do")


class Garage(Record, frozen=True):
    """The outermost record."""

    name: str = "home"
    car: Car = Car(doors=5)
    size: int = 1


def load(
    *files: str,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Loaded[Garage]:
    """Read files ``file0``, ``file1``, …, then the environment, then options."""
    layers = Layers(Garage(), "G_")
    for i, text in enumerate(files):
        layers.add_toml(text, f"file{i}")
    layers.add_environment(environ or {})
    layers.add_options(options or {})
    return layers.load()


def from_variable(name: str, text: str) -> Any:  # Any: a value of any setting
    """Give the car's value after one variable."""
    loaded = load(environ={f"G_CAR__{name.upper()}": text})
    return getattr(loaded.record.car, name)


class SettingTests(SynchronousTestCase):
    """:class:`Setting` knows its three names, what it is and what it takes."""

    def setUp(self) -> None:
        self.by_key = {setting.key: setting for setting in settings(Garage())}

    def test_every_leaf_in_order(self) -> None:
        """Settings come in the order of the fields, records in place of their name."""
        keys = list(self.by_key)
        self.assertEqual(keys[:5], ["name", "car.doors", *keys[2:4], "car.owner"])
        self.assertEqual(keys[2:4], ["car.engine.power", "car.engine.fuel"])
        self.assertEqual(keys[-1], "size")

    def test_names(self) -> None:
        """A setting has one name in each layer."""
        setting = self.by_key["car.engine.power"]
        self.assertEqual(setting.variable("G_"), "G_CAR__ENGINE__POWER")
        self.assertEqual(setting.option, "car-engine-power")

    def test_default(self) -> None:
        """The default is that of the record it stands in, not of its class."""
        self.assertEqual(self.by_key["car.doors"].default, 5)

    def test_description(self) -> None:
        """A description is found inside a union, and is empty where there is none."""
        self.assertEqual(self.by_key["car.engine.power"].description, "kW")
        self.assertEqual(self.by_key["car.owner"].description, "its\nowner")
        self.assertEqual(self.by_key["size"].description, "")

    def test_allowed(self) -> None:
        """An optional setting says how to spell None."""
        self.assertEqual(self.by_key["car.doors"].allowed, "an integer from 2 to 5")
        self.assertEqual(self.by_key["car.price"].allowed, "an integer or none")


class TomlTests(SynchronousTestCase):
    """:meth:`Layers.add_toml` takes values of the right type."""

    def test_nothing(self) -> None:
        """Without any layer all values are defaults, from nowhere."""
        loaded = load()
        self.assertEqual(loaded.record, Garage())
        self.assertEqual(loaded.origins, {})

    def test_values(self) -> None:
        """A value of each kind arrives, and its origin is the file."""
        loaded = load(
            """
            size = 2
            [car]
            electric = true
            owner = "Ann"
            seats = [1, 2, 3]
            stickers = ["x", "y"]
            extras = {radio = "new"}
            engine.power = 50
            price = "none"
            """
        )
        self.assertEqual(
            loaded.record,
            Garage(
                size=2,
                car=Car(
                    doors=5,
                    electric=True,
                    owner="Ann",
                    seats=(1, 2, 3),
                    stickers=("x", "y"),
                    extras={"radio": "new"},
                    engine=Engine(power=50.0),
                    price=None,
                ),
            ),
        )
        self.assertEqual(loaded.origins["car.engine.power"], "file0")
        self.assertNotIn("car.doors", loaded.origins)

    def test_text_is_not_read_as_a_number(self) -> None:
        """A number in quotes is text, in a file."""
        self.assert_mistakes('size = "2"', 'file0: size is "2", must be an integer')

    def test_wrong_values(self) -> None:
        """Each wrong value is told with its key, what was found and what is allowed."""
        self.assert_mistakes(
            """
            name = 1979-05-27
            size = true
            car.doors = 6
            car.seats = [0]
            car.engine.fuel = "coal"
            car.engine.power = inf
            """,
            "file0: name is 1979-05-27, must be text",
            "file0: size is true, must be an integer",
            "file0: car.doors is 6, must be an integer from 2 to 5",
            "file0: car.seats is [0], must be a list, each item an integer of at least 1",
            "file0: car.engine.fuel is \"coal\", must be one of 'petrol', 'diesel'",
            "file0: car.engine.power is inf, must be a number above 0",
        )

    def test_long_values_are_cut(self) -> None:
        """A mistake repeats 64 characters of a value, and no more of a key."""
        (mistake,) = self.mistakes(f"size = '{'x' * 100}'")
        self.assertEqual(mistake, f'file0: size is "{"x" * 63}…, must be an integer')
        (mistake,) = self.mistakes(f"{'k' * 100} = 1")
        self.assertEqual(mistake, f"file0: there is no setting {'k' * 64}…")

    def test_unknown_keys(self) -> None:
        """An unknown key is told with the nearest one beside it, or its namesake elsewhere."""
        self.assert_mistakes(
            """
            sise = 1
            doors = 1
            zzz = 1
            [car]
            eletric = 1
            sti = 1
            [car.engin]
            power = 1
            """,
            "file0: there is no setting sise; did you mean size?",
            "file0: there is no setting doors; did you mean car.doors?",
            "file0: there is no setting zzz",
            "file0: there is no setting car.eletric; did you mean car.electric?",
            "file0: there is no setting car.sti; did you mean car.stickers?",
            "file0: there is no setting car.engin; did you mean car.engine?",
        )

    def test_section_that_is_a_value(self) -> None:
        """A section must be a table; what the record would say as a whole is not asked."""
        self.assert_mistakes("car = 5", "file0: car is 5, must be a table")

    def test_not_toml(self) -> None:
        """Text that is not TOML is told with line and column."""
        (mistake,) = self.mistakes("size = 1\ncar =\n")
        self.assertEqual(mistake, "file0, line 2, column 6: this is not TOML: invalid value")

    def test_not_toml_at_the_end(self) -> None:
        """Text that stops too early is told so."""
        (mistake,) = self.mistakes("size = [1,")
        self.assertTrue(mistake.startswith("file0, at its end: this is not TOML: "), mistake)

    def test_toml_beyond_python(self) -> None:
        """What the parser cannot hold is a mistake, not a crash."""
        (mistake,) = self.mistakes("size = " + "9" * 5000)
        self.assertTrue(mistake.startswith("file0: this is not TOML: "), mistake)
        (mistake,) = self.mistakes("size = " + "[" * 100_000)
        self.assertEqual(mistake, "file0: nested too deeply")

    @given(st.text(max_size=200))
    @example("size = 1")
    @example("car.owner = '\x7f'")
    def test_any_text(self, text: str) -> None:
        """Whatever a file holds, it gives a record or lines that each name it."""
        try:
            load(text)
        except ConfigError as error:
            for mistake in error.mistakes:
                self.assertTrue(mistake.startswith("file0"), mistake)

    def mistakes(self, text: str) -> list[str]:
        """Load a file that has mistakes."""
        error: ConfigError = self.assertRaises(ConfigError, load, text)
        return error.mistakes

    def assert_mistakes(self, text: str, *expected: str) -> None:
        """Check that a file has these mistakes, in this order."""
        self.assertEqual(self.mistakes(text), list(expected))


class TextTests(SynchronousTestCase):
    """Variables and options are text, from which the values are read."""

    def test_scalars(self) -> None:
        """Numbers and truth values are read out of the text."""
        self.assertEqual(from_variable("doors", "3"), 3)
        self.assertIs(from_variable("electric", "true"), True)
        self.assertIs(from_variable("electric", "0"), False)
        self.assertEqual(from_variable("owner", "3"), "3")
        self.assertEqual(load(environ={"G_CAR__ENGINE__POWER": "1e2"}).record.car.engine.power, 100)

    def test_lists(self) -> None:
        """A list is its items with commas, or JSON; no text is the empty list."""
        for text in ("1,2", " 1 , 2 ", "[1, 2]", " [1,2]"):
            with self.subTest(text=text):
                self.assertEqual(from_variable("seats", text), (1, 2))
        self.assertEqual(from_variable("seats", ""), ())
        self.assertEqual(from_variable("seats", " "), ())
        self.assertEqual(from_variable("stickers", "a b,c"), ("a b", "c"))
        self.assertEqual(from_variable("stickers", '["a,b"]'), ("a,b",))

    def test_tables(self) -> None:
        """A table is JSON."""
        self.assertEqual(from_variable("extras", '{"a": "b"}'), {"a": "b"})

    def test_none(self) -> None:
        """``none`` is None where a setting may be, and text like any other elsewhere."""
        self.assertIsNone(from_variable("price", "none"))
        self.assertEqual(load(environ={"G_NAME": "none"}).record.name, "none")

    def test_wrong_text(self) -> None:
        """Wrong text is told with the variable, the key and what is allowed."""
        wrong = {
            "G_SIZE": "",
            "G_NAME": "\udcff",
            "G_CAR__SEATS": "1,,2",
            "G_CAR__STICKERS": "[1]",
            "G_CAR__EXTRAS": "{",
            "G_CAR__ENGINE__POWER": "nan",
            "G_CAR__ELECTRIC": "maybe",
        }
        error = self.assertRaises(ConfigError, load, environ=wrong)
        self.assertEqual(
            error.mistakes,
            [
                'G_SIZE: size is "", must be an integer',
                'G_NAME: name is "\\udcff", must be text',
                'G_CAR__SEATS: car.seats is "1,,2", must be a list, each item an integer of at '
                "least 1",
                r'G_CAR__STICKERS: car.stickers is "[1]", must be a list, each item text',
                'G_CAR__EXTRAS: car.extras is "{", must be a table',
                'G_CAR__ENGINE__POWER: car.engine.power is "nan", must be a number above 0',
                'G_CAR__ELECTRIC: car.electric is "maybe", must be true or false',
            ],
        )

    def test_json_too_deep(self) -> None:
        """JSON nested without end is a mistake."""
        error = self.assertRaises(ConfigError, load, environ={"G_CAR__SEATS": "[" * 100_000})
        self.assertEqual(len(error.mistakes), 1)

    def test_other_variables(self) -> None:
        """Variables without the prefix, or with one in small letters, are not looked at."""
        self.assertEqual(load(environ={"SIZE": "x", "g_size": "x"}).record, Garage())

    def test_unknown_variables(self) -> None:
        """A variable with the prefix that is no setting is told with the nearest one."""
        wrong = {"G_CAR__DOOR": "1", "G_CAR": "{}", "G_ZZZZZZ": "1", "G_size": "1"}
        error = self.assertRaises(ConfigError, load, environ=wrong)
        self.assertEqual(
            error.mistakes,
            [
                "G_CAR__DOOR: there is no such setting; did you mean G_CAR__DOORS?",
                "G_CAR: car is a section; its variables begin with G_CAR__",
                "G_ZZZZZZ: there is no such setting",
                "G_size: there is no such setting; did you mean G_SIZE?",
            ],
        )

    def test_options(self) -> None:
        """An option is read like a variable and named with its hyphens."""
        self.assertEqual(load(options={"car-engine-power": "3"}).record.car.engine.power, 3)
        error = self.assertRaises(ConfigError, load, options={"car-doors": "9"})
        self.assertEqual(
            error.mistakes, ['--car-doors: car.doors is "9", must be an integer from 2 to 5']
        )


class LayersTests(SynchronousTestCase):
    """:class:`Layers` puts layers one over the other, and gathers what is wrong in them."""

    def test_later_wins(self) -> None:
        """A value of a later layer replaces that of an earlier one, one setting at a time."""
        loaded = load(
            "size = 1\nname = 'a'",
            "size = 2\ncar.doors = 2",
            environ={"G_SIZE": "3", "G_CAR__DOORS": "3"},
            options={"size": "4"},
        )
        self.assertEqual(loaded.record, Garage(size=4, name="a", car=Car(doors=3)))
        self.assertEqual(
            loaded.origins, {"size": "--size", "name": "file0", "car.doors": "G_CAR__DOORS"}
        )

    def test_mistakes_of_all_layers(self) -> None:
        """The mistakes of all layers come together, also those that a later layer mends."""
        error = self.assertRaises(
            ConfigError,
            load,
            "size = 'x'",
            "=",
            environ={"G_SIZE": "1", "G_SISE": ""},
            options={"size": "y"},
        )
        self.assertEqual(
            [mistake.split(":")[0] for mistake in error.mistakes],
            ["file0", "file1, line 1, column 1", "G_SISE", "--size"],
        )

    def test_other_mistakes(self) -> None:
        """A mistake of the caller's is one among the others."""
        layers = Layers(Garage(), "G_")
        layers.add_mistake("file9: there is no such file")
        error = self.assertRaises(ConfigError, layers.load)
        self.assertEqual(str(error), "file9: there is no such file")

    def test_rule_of_a_record(self) -> None:
        """What a record refuses as a whole is told with its key and where its values are from."""
        error = self.assertRaises(
            ConfigError,
            load,
            "car.electric = true\nsize = 3",
            environ={"G_CAR__ENGINE__FUEL": "diesel"},
        )
        self.assertEqual(
            error.mistakes, ["file0, G_CAR__ENGINE__FUEL: car: an electric car burns no diesel"]
        )

    def test_rule_of_a_field(self) -> None:
        """A record that names a field by its class has it named by its key."""
        error = self.assertRaises(ConfigError, load, "car.stickers = ['bad']")
        self.assertEqual(error.mistakes, ["file0: car.stickers: 'bad' will not do"])

    def test_rules_wait_for_values(self) -> None:
        """The rule of a record is not asked while one of its values is a mistake."""
        error = self.assertRaises(
            ConfigError, load, "car.electric = true\ncar.engine.fuel = 'diesel'\ncar.doors = 9"
        )
        self.assertEqual(error.mistakes, ["file0: car.doors is 9, must be an integer from 2 to 5"])


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
"""Texts that a record accepts."""


class ToTomlTests(SynchronousTestCase):
    """:func:`to_toml` writes a file that gives the same record."""

    def test_form(self) -> None:
        """What it is and what is allowed stand above, the origin behind; tables come last."""
        text = to_toml(Garage(size=7), {"size": "net.toml"})
        self.assertEqual(
            text.splitlines()[:9],
            [
                "# (text)",
                'name = "home"  # default',
                "",
                "# (an integer)",
                "size = 7  # net.toml",
                "",
                "[car]",
                "# how many doors (an integer from 2 to 5)",
                "doors = 5  # default",
            ],
        )
        self.assertEqual(text.count("[car]"), 1)
        self.assertIn("# its?owner (text or none)", text)

    def test_origin_on_one_line(self) -> None:
        """A line end in the name of a file does not end the comment."""
        text = to_toml(Garage(), {"size": "a\nb = 1"})
        self.assertEqual(tomllib.loads(text)["size"], 1)
        self.assertIn("# a?b = 1", text)

    def test_types_that_settings_do_not_have(self) -> None:
        """A value that TOML cannot spell is refused."""

        class Raw(Record, frozen=True):
            data: bytes = b""

        self.assertRaises(TypeError, to_toml, Raw())

    @given(
        st.builds(
            Garage,
            name=TEXTS,
            size=st.integers(),
            car=st.builds(
                Car,
                doors=st.integers(2, 5),
                engine=st.builds(
                    Engine,
                    power=st.floats(min_value=1e-300, allow_infinity=False),
                    fuel=st.sampled_from(["petrol", "diesel"]),
                ),
                owner=st.none() | TEXTS.filter(lambda text: text != "none"),
                seats=st.lists(st.integers(1)).map(tuple),
                stickers=st.lists(TEXTS).map(tuple),
                extras=st.dictionaries(TEXTS, TEXTS),
                price=st.none() | st.integers(),
            ),
        )
    )
    def test_round_trip(self, garage: Garage) -> None:
        """Any record comes back equal."""
        self.assertEqual(load(to_toml(garage)).record, garage)


class Safe(Record, frozen=True):
    """A record with secrets."""

    key: Annotated[int, Meta(ge=1, description="a key", extra={"secret": True})] | None = None
    words: Annotated[tuple[str, ...], Meta(extra={"secret": True})] = ()
    size: int = 1


class SecretTests(SynchronousTestCase):
    """A setting that is marked as secret is shown nowhere."""

    def test_marked(self) -> None:
        """A setting knows whether it is one, also where it may be absent."""
        marked = {setting.key: setting.secret for setting in settings(Safe())}
        self.assertEqual(marked, {"key": True, "words": True, "size": False})

    def test_to_toml(self) -> None:
        """A secret that is set is written as a comment; one that is not set, as it is."""
        text = to_toml(Safe(key=4711, words=()), {"key": "net.toml"})
        self.assertNotIn("4711", text)
        self.assertIn("# key = ***  # net.toml", text)
        self.assertIn("words = []  # default", text)
        self.assertEqual(tomllib.loads(text), {"words": [], "size": 1})

    def test_mistakes(self) -> None:
        """A mistake in a secret says what is allowed, and not what was found."""
        layers = Layers(Safe(), "S_")
        layers.add_toml("key = 'sesame'", "net.toml")
        layers.add_environment({"S_KEY": "sesame", "S_WORDS": '["sesame'})
        layers.add_options({"key": "sesame"})
        error = self.assertRaises(ConfigError, layers.load)
        self.assertNotIn("sesame", str(error))
        self.assertEqual(
            error.mistakes[0], "net.toml: key is wrong, must be an integer of at least 1 or none"
        )


class Wheel(Record, frozen=True):
    """What a list may hold beside text."""

    size: Annotated[int, Meta(ge=10)] = 16
    engine: Engine = Engine()
    code: Annotated[str, Meta(extra={"secret": True})] = ""
    spare: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spare and self.size > 20:
            raise ValueError("a spare wheel is small")


class Truck(Record, frozen=True):
    """A record with a list of records."""

    wheels: Annotated[tuple[str | Wheel, ...], Meta(description="its wheels")] = ()
    names: tuple[str, ...] | None = None


class ItemsTests(SynchronousTestCase):
    """A list may hold records, which are written as tables."""

    def load(self, text: str = "", variable: str | None = None) -> tuple[str | Wheel, ...]:
        """Give the wheels of a file and a variable."""
        layers = Layers(Truck(), "T_")
        layers.add_toml(text, "file")
        layers.add_environment({} if variable is None else {"T_WHEELS": variable})
        return layers.load().record.wheels

    def mistakes(self, text: str = "", variable: str | None = None) -> list[str]:
        """Give what is wrong with them."""
        error: ConfigError = self.assertRaises(ConfigError, self.load, text, variable)
        return error.mistakes

    def test_tables(self) -> None:
        """Tables and text may stand side by side, and hold what their records hold."""
        for text in (
            "wheels = [{size = 20, engine = {power = 5}}, 'steel']",
            "wheels = [{size = 20, engine.power = 5.0}, 'steel']",
        ):
            self.assertEqual(self.load(text), (Wheel(size=20, engine=Engine(power=5)), "steel"))
        self.assertEqual(self.load("[[wheels]]\nsize = 11\n[[wheels]]"), (Wheel(size=11), Wheel()))

    def test_text(self) -> None:
        """A variable is JSON, or text with commas."""
        self.assertEqual(self.load(variable='[{"size": 20}, "a"]'), (Wheel(size=20), "a"))
        self.assertEqual(self.load(variable="a, b"), ("a", "b"))
        self.assertEqual(self.load(variable=""), ())

    def test_mistakes(self) -> None:
        """Each mistake in an item has its line, with the number of the item."""
        self.assertEqual(
            self.mistakes(
                "[[wheels]]\nsize = 5\nsiz = 6\n[[wheels]]\nengine.powr = 1\n"
                "[[wheels]]\nsize = 21\nspare = true"
            ),
            [
                "file: wheels[0].size is 5, must be an integer of at least 10",
                "file: there is no setting wheels[0].siz; did you mean wheels[0].size?",
                "file: there is no setting wheels[1].engine.powr; did you mean "
                "wheels[1].engine.power?",
                "file: wheels[2]: a spare wheel is small",
            ],
        )
        self.assertEqual(
            self.mistakes(variable='[{"engine": {"power": -1}}]'),
            ["T_WHEELS: wheels[0].engine.power is -1, must be a number above 0"],
        )

    def test_wrong_items(self) -> None:
        """What is neither text nor a table is a mistake; so is text that is no JSON."""
        allowed = "must be a list, each item text or a table"
        self.assertEqual(self.mistakes("wheels = [5]"), [f"file: wheels is [5], {allowed}"])
        self.assertEqual(self.mistakes("wheels = {}"), [f"file: wheels is {{}}, {allowed}"])
        self.assertEqual(self.mistakes(variable="[{"), [f'T_WHEELS: wheels is "[{{", {allowed}'])

    def test_other_lists(self) -> None:
        """Lists of anything else have no such items."""
        items = {setting.key: setting.item for setting in settings(Truck())}
        self.assertEqual(items, {"wheels": Wheel, "names": None})

    def test_to_toml(self) -> None:
        """They are written as tables of what is not as by default, without secrets."""
        truck = Truck(wheels=(Wheel(size=20, engine=Engine(power=5), code="4711"), "a", Wheel()))
        text = to_toml(truck)
        self.assertIn('wheels = [{"size" = 20, "engine" = {"power" = 5}}, "a", {}]', text)
        self.assertEqual(self.load(text), (Wheel(size=20, engine=Engine(power=5)), "a", Wheel()))
