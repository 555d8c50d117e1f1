"""The tree of errors: each branch says whose fault it is, each leaf has its wire code."""

from __future__ import annotations

from typing import ClassVar


class TwistedNetError(Exception):
    """
    The root of every error that this package raises on purpose.

    ``str(error)`` is the sentence for a person.

    :cvar code: the name of the error on the wire; it never changes.
    """

    code: ClassVar[str] = "error"

    def details(self) -> dict[str, object]:
        """Give the members that an answer carries beside ``error`` and ``code``."""
        return {}


# --- The client asked for something wrong: answered, the connection lives. ---


class CommandError(TwistedNetError):
    """A command was refused. Handlers raise it, or a leaf of their own, to answer with an error."""

    code = "refused"


class EmptyMessage(CommandError):
    """The line holds no command."""

    code = "empty"

    def __init__(self) -> None:
        super().__init__("empty message")


class UnknownCommand(CommandError):
    """
    No command has this name.

    :param name: as the client spelt it; shown up to 64 characters.
    """

    code = "unknown_command"

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown command: {name if len(name) <= 64 else name[:64] + '…'}")
        self.name = name


class NotUTF8(CommandError):
    """The line is not UTF-8; *position* counts bytes from 0."""

    code = "not_utf8"

    def __init__(self, position: int, byte: int) -> None:
        super().__init__(f"the line is not UTF-8: byte 0x{byte:02x} at position {position}")
        self.position = position

    def details(self) -> dict[str, object]:
        return {"position": self.position}


class ControlCharacter(CommandError):
    """The line holds a control character (C0 or DEL) other than a tab; NUL and a bare CR are."""

    code = "control_character"

    def __init__(self, position: int, character: str) -> None:
        super().__init__(
            f"the line holds the control character U+{ord(character):04X} at position {position}"
        )
        self.position = position

    def details(self) -> dict[str, object]:
        return {"position": self.position}


class BadQuotes(CommandError):
    """A quoted argument has no end, or is followed by something other than white space."""

    code = "bad_quotes"


class BadArguments(CommandError):
    """The arguments are too few, too many, or of another type than the command declares."""

    code = "bad_arguments"


class LineTooLong(CommandError):
    """A line passed the limit; its bytes were dropped and the lines after it are whole."""

    code = "line_too_long"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the line is longer than {limit} bytes")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class UnterminatedLine(CommandError):
    """The client ended its stream in the middle of a line, which is not run: it may be half."""

    code = "unterminated_line"

    def __init__(self) -> None:
        super().__init__("the last line has no end (LF) and was not run")


class TooManyConnections(CommandError):
    """The server holds as many connections as it may; this one is closed."""

    code = "too_many_connections"

    def __init__(self, limit: int) -> None:
        super().__init__(f"too many connections: this server takes {limit}")
        self.limit = limit

    def details(self) -> dict[str, object]:
        return {"limit": self.limit}


class Internal(CommandError):
    """A handler failed in a way that it did not foresee; the log has the traceback."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("internal error; the server's log tells more")


# --- The far HTTP server, or the way to it. ---


class FetchError(TwistedNetError):
    """An HTTP request got no answer that its caller can use."""

    code = "fetch_failed"


# --- The operator. ---


class ConfigError(TwistedNetError):
    """
    The configuration cannot be used.

    :param mistakes: one line each, in the order found; never empty.
    """

    code = "bad_configuration"

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes
