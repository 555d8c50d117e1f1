"""Redaction: how much of what a peer has sent is shown to others, in logs, audit and errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import unquote_plus

from twisted_net.net.characters import partition_word

MAX_SHOWN = 200
"""Characters of a command line or a URL that are shown, at most."""

MAX_UNKNOWN = 4
"""Characters of a word that is no command that are shown: it may be a token or a password."""

MAX_PART = 20
"""Longest part of a foreign request's path that is shown whole; a longer one may be a token."""

LOOKED_AT = 4 * MAX_SHOWN
"""Characters of a text that are looked at; what follows is not shown."""

_MAX_PATH = 64

# The scheme is searched for at the beginning only: elsewhere the search would start again at each
# letter of a long word. There it may be missing or have one slash, and a slash, question mark or
# hash in the password may not be encoded: such a URL is refused, and the error shows it.
_USERINFO = re.compile(r"(?P<start>://|^(?:[A-Za-z][A-Za-z0-9+.-]*:/)?/*)[^/?#]*@")
_USERINFO_WITH_SLASH = re.compile(
    r"(?P<start>(?:[^/?#]*:/)?/*)[^/?#@:\[]*:(?![0-9]*[/?#])[^/?#@]*[/?#].*@", re.DOTALL
)
# A word need not be a URL: a name before an @ may be that of a user, unless a colon follows it.
_USERINFO_OF_WORD = re.compile(r"(?P<start>://|^/*(?=[^/?#@]*:))[^/?#]*@")
_USERINFO_OF_TEXT = re.compile(r"(?P<start>://)[^/?#]*@")
_PARAMETER = re.compile(r"[?&;#](?P<name>[^?&;#=]++)=")
_VALUE = re.compile(r"[^&#]*")
# With the colon and the equals sign of full width.
_ASSIGNMENT = re.compile(
    r"""(?<![\w.%-])[.-]*+(?P<name>[\w%][\w.%-]*+)(?:\[[0-9]*+\])*+[\\"'\]]*\s*[=:>\uff1a\uff1d]"""
    r"""|--(?P<option>\w[\w-]*+)\s|(?<!\w)(?i:bearer|basic)\s"""
    r"""|(?<!\w)(?i:access|api|private|secret)\s+(?i:key)\s*[=:]"""
)
_PUNCTUATION = " \t\"'\\,:=[]{}()"

_SECRET_ENDINGS = (
    *("token", "secret", "password", "passwd", "passphrase", "apikey", "accesskey", "privatekey"),
    *("secretkey", "signature", "credential", "authorization", "cookie", "sessid", "sessionid"),
    *("passcode", "samlresponse"),
)
_SECRET_PARTS = frozenset(
    {"assertion", "auth", "bearer", "jwt", "oauth", "otp", "pass", "pw", "pwd", "sid", "sig"}
)
# Outside of URLs these are too common to be taken for secrets.
_SECRET_PARAMETERS = frozenset({"code", "key", "pin", "session", "ticket"})

# The version may be missing where the line was cut.
_REQUEST = re.compile(
    r"(?P<method>[A-Za-z-]{1,16}) (?P<target>/[^ ]*|[^ ]+(?= [A-Z]+/[0-9]))"
    r"(?P<version> [A-Z]+/[0-9.]+)?"
)
_FIELD = re.compile(r"[A-Za-z-]{1,32}:")
_PATH_PART = re.compile(r"[^/]+")


def redact_url(url: str) -> str:
    """
    Return a URL without secrets, to be shown and logged.

    User name and password, and the values of parameters whose names say that they are secret
    (``token``, ``api_key``, ``signature`` …), become ``***``; at most :data:`MAX_SHOWN` characters
    are shown. Where marks of a secret are percent-encoded, the URL is shown decoded. Takes time
    linear in the length.
    """
    return cut(_also_decoded(url, _redact_url))


def shown_word(word: str) -> str:
    """
    Return a word that is no command as it may be shown.

    It may be a secret that was sent in the wrong place: one of over :data:`MAX_UNKNOWN` characters
    is cut to so many, and to half of its length.
    """
    if len(word) <= MAX_UNKNOWN:
        return word
    return word[: min(MAX_UNKNOWN, len(word) // 2)] + "…"


def shown_arguments(text: str, secret: Iterable[str] = ()) -> str:
    """
    Return the arguments of a command as they may be shown, :data:`MAX_SHOWN` characters.

    URLs are shown as :func:`redact_url` does. What follows the name of a secret and ``=`` or ``:``
    (``token=…``, ``"password":…``, ``Authorization: …``), or the name of a secret command, is left
    out, as nobody can say where the secret ends.

    :param text: the arguments, of any length; :data:`LOOKED_AT` characters are looked at.
    :param secret: names of commands whose arguments are secret.
    """
    if len(text) > LOOKED_AT:
        text = _with_mark(text[:LOOKED_AT])
    names = tuple(sorted(secret))
    return cut(_also_decoded(text, lambda text: _redact_arguments(text, names)))


def shown_opening(line: bytes) -> str:
    """
    Return the first line of another protocol as it may be shown.

    Of a request the method and the path are shown, without its parameters and without parts that
    are as long as a token; of a header field its name; of anything else :func:`shown_word`.

    :param line: of any length; :data:`LOOKED_AT` bytes are looked at.
    """
    text = line[:LOOKED_AT].decode(errors="backslashreplace").strip()
    if found := _REQUEST.match(text):
        target = re.split("[?#;]", found["target"], maxsplit=1)
        path = _PATH_PART.sub(_without_token, redact_url(target[0]))
        more = "…" if len(target) > 1 or len(path) > _MAX_PATH else ""
        return f"{found['method']} {path[:_MAX_PATH]}{more}{found['version'] or ''}"
    if found := _FIELD.match(text):
        return found[0] if found.end() == len(text) else f"{found[0]} …"
    return shown_unknown(text)


def shown_unknown(text: str) -> str:
    """Return a line whose first word is no command as it may be shown: that word in part."""
    word, rest = partition_word(text)
    return shown_word(word) + (" …" if rest else "")


def cut(text: str) -> str:
    """Cut a text to :data:`MAX_SHOWN` characters."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _also_decoded(text: str, redact: Callable[[str], str]) -> str:
    """Redact a text, and again without percent-encoding and JSON's escapes, which hide marks."""
    shown = redact(text)
    if "%" not in shown and "\\" not in shown:
        return shown
    # Each of them takes a call.
    decoded = _ENCODED.sub(_decode, shown[:LOOKED_AT])
    if len(shown) > LOOKED_AT:
        decoded = _with_mark(decoded)
    redacted = redact(decoded)
    return shown if redacted == decoded else redacted


def _with_mark(text: str) -> str:
    """Let user name and password end where a text was cut within these: their mark was to come."""
    # A text of spaces alone has no last word.
    return text + "@" if any("://" in word for word in text.rsplit(None, 1)[-1:]) else text


def _decode(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    if code is None:
        return "/"
    character = chr(int(code, 16))
    return character if "!" <= character <= "~" else match[0]


def _redact_url(url: str) -> str:
    return _without_parameters(_without_userinfo(url, _USERINFO))


def _redact_arguments(text: str, secret: tuple[str, ...]) -> str:
    shown = _without_secrets(text, secret)
    if "@" in shown:
        # An argument in quotes may have spaces, so this is for all words together.
        shown = _USERINFO_OF_TEXT.sub(r"\g<start>***@", shown)
        shown = "".join(map(_without_userinfo_of_word, _SPACES.split(shown)))
    return _without_parameters(shown)


def _without_userinfo(word: str, pattern: re.Pattern[str]) -> str:
    match = _USERINFO_WITH_SLASH.match(word)
    shown = word if match is None else f"{match['start']}***@{word[match.end() :]}"
    return pattern.sub(r"\g<start>***@", shown)


def _without_userinfo_of_word(word: str) -> str:
    if "@" not in word:
        return word
    # What has a path is a URL.
    return _without_userinfo(word, _USERINFO if "/" in word else _USERINFO_OF_WORD)


def _without_parameters(text: str) -> str:
    """Hide the values of secret parameters of URLs."""
    parts = []
    done = 0
    for found in _PARAMETER.finditer(text):
        begin = found.end()
        if begin <= done or not _is_secret(found["name"], text, begin, _SECRET_PARAMETERS):
            continue
        value = _VALUE.match(text, begin)
        if value is not None and value.end() > begin:
            parts += [text[done:begin], "***"]
            done = value.end()
    return "".join([*parts, text[done:]])


def _without_secrets(text: str, secret: tuple[str, ...]) -> str:
    """Leave out what follows the first name of a secret, or of a secret command."""
    ends = []
    for found in _ASSIGNMENT.finditer(text):
        name = found["name"] or found["option"]
        # Parameters of URLs have values that end.
        in_url = text[found.start() - 1 : found.start()] in ("?", "&", ";", "#")
        if name is None or (not in_url and _is_secret(name, text, found.end())):
            ends.append(found.end())
            break
    mentioned = _mentions(secret).search(text) if secret else None
    if mentioned is not None:
        ends.append(mentioned.end())
    end = min(ends, default=len(text))
    return f"{text[:end].rstrip()} …" if text[end:].strip(_PUNCTUATION) else text


def _is_secret(name: str, text: str, begin: int, others: frozenset[str] = frozenset()) -> bool:
    """
    Return whether the value of a parameter or field is secret, by the end of its name.

    :param begin: where the value begins in *text*.
    :param others: last words of a name that are secret beside those that always are.
    """
    words = _NOT_A_LETTER.sub(" ", _CAMEL.sub(" ", unquote_plus(name)).lower()).split()
    if not words:
        return False
    last, joined = words[-1], "".join(words)
    if last in _SECRET_PARTS or last in others or joined.endswith(_SECRET_ENDINGS):
        return True
    if not last.endswith("s"):
        return False
    last, joined = last[:-1], joined[:-1]
    several = last in _SECRET_PARTS or last in others or joined.endswith(_SECRET_ENDINGS)
    # A number is how many there are, as in max_tokens=5.
    return several and _NUMBER.match(text, begin) is None


def _without_token(match: re.Match[str]) -> str:
    return match[0] if len(match[0]) <= MAX_PART else shown_word(match[0])


@lru_cache(64)
def _mentions(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds one of these names as a word."""
    joined = "|".join(map(re.escape, names))
    return re.compile(rf"(?i:(?<![\w.-])(?:{joined})(?![\w.-]))", re.ASCII)


_SPACES = re.compile(r"(\s+)")
_NOT_A_LETTER = re.compile(r"[^a-z]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NUMBER = re.compile(r"""[\s"']*[0-9]++(?![\w.%-])""")
# Once, or again and again: %2525 is %25, which is %. Quoted, JSON has more than one backslash.
_ENCODED = re.compile(r"%(?:25)*([2-7][0-9A-Fa-f])|\\++(?:u00([2-7][0-9A-Fa-f])|/)")
