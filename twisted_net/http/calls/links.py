"""Links in header fields: ``Link`` (RFC 8288), parsed in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from urllib.parse import unquote_to_bytes

from attrs import frozen

from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import TCHAR, unescape
from twisted_net.http.urls import encode_url, join
from twisted_net.net.charsets import codec_for

MAX_LINKS = 256
"""Links of one response that are parsed: resolving each URL takes some microseconds."""

MAX_LENGTH = 8192
"""Characters of all lines of one response that are parsed; the line that goes beyond is not."""

MAX_PARAMETERS = 32
"""Parameters of one link that are parsed."""

_HTTP = re.compile(r"https?:", re.IGNORECASE)
_PARAMETER = (
    rf"[ \t]*+;[; \t]*+(?:({TCHAR}++)[ \t]*+"
    r'(?:=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;,"]*+)))?+)?+'
)
_LINK = re.compile(rf"<([^<>]*+)>((?:{_PARAMETER})*+)", re.DOTALL)
_PARAMETERS = re.compile(_PARAMETER, re.DOTALL)


@frozen
class WebLink:
    """
    A link of a response to another resource (RFC 8288).

    :param url: absolute; it may have any scheme.
    :param relations: its relation types, in lower case, such as ``next``.
    :param parameters: all others by name in lower case, such as ``title`` and ``type``.
    """

    url: str
    relations: tuple[str, ...]
    parameters: Mapping[str, str]


def parse_links(values: Iterable[str], base: str) -> list[WebLink]:
    """
    Return the links of a response, in order, of its first :data:`MAX_LINKS`.

    Malformed text is skipped, and so are links without a relation type, and those from another
    resource (``anchor``), which a client may ignore (§3.2). Of a parameter that occurs twice the
    first counts (§3.3, §3.4.1); ``title*`` replaces ``title`` (RFC 8187).

    :param values: the lines of ``Link``.
    :param base: absolute URL of the response.
    """
    links: list[WebLink] = []
    for target, text in islice(_link_values(values), MAX_LINKS):
        parameters = _parameters(text)
        relations = tuple(dict.fromkeys(parameters.pop("rel", "").lower().split()))
        if not relations or "anchor" in parameters:
            continue
        address, mark, fragment = target.partition("#")
        url = join(base, address)
        if _HTTP.match(url):
            try:
                encode_url(url)
            except InvalidURL:
                continue
        links.append(WebLink(f"{url}{mark}{fragment}", relations, _decoded(parameters)))
    return links


def _link_values(values: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Iterate over the target of each link, and the text of its parameters."""
    length = 0
    for value in values:
        length += len(value)
        if length > MAX_LENGTH:
            return
        for match in _LINK.finditer(value):
            yield match[1].strip(), match[2]


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    for _ in range(MAX_PARAMETERS):
        match = _PARAMETERS.match(text, at)
        if match is None:
            break
        at = match.end()
        name, quoted, token = match.groups()
        if name is not None:
            value = token or "" if quoted is None else unescape(quoted)
            found.setdefault(name.lower(), value)
    return found


def _decoded(parameters: dict[str, str]) -> dict[str, str]:
    """Return parameters with those of RFC 8187, such as ``title*``, decoded."""
    for name in [name for name in parameters if name.endswith("*")]:
        charset, _, rest = parameters.pop(name).partition("'")
        _, quote, text = rest.partition("'")
        codec = codec_for(charset)
        if quote and codec is not None:
            parameters[name.removesuffix("*")] = unquote_to_bytes(text).decode(codec, "replace")
    return parameters
