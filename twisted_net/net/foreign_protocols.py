"""
Foreign protocols: recognizes the lines by which other protocols open a connection.

A web page can make a browser send HTTP to any port, with commands of ours in the body or in the
path (cross-protocol attack), and so can whoever gives a URL to a program that fetches it. Neither
can leave out what comes first: a request line, or the bytes of a TLS handshake. Redis closes a
connection at ``POST`` or ``Host:`` for this reason. Programs that take the port for another
server's, and scanners, are recognized as well.

Clients of stores, such as Redis and memcached, are another case: what a stranger had them store
stands on a line of its own, so that a program which can be pointed at this port would run it.

A line counts as another protocol's in three ways:

- *Its beginning is in* :data:`BEGINNINGS`; no command should have such a name.
- *It ends with a version of a protocol*, as all request lines do: ``PING / HTTP/1.1`` is a request
  with the method PING, which a page may choose, and no command. A command that needs such an
  argument quotes it: ``ECHO x "HTTP/1.1"``.
- *Its first word is in* :data:`GREETINGS` *or* :data:`METHODS`, or it is as in :data:`STORAGE`,
  unless a command of the server has the name of its first word. So ``GET key`` runs where there is
  a command GET, but ``GET / HTTP/1.1`` does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

HEADERS = (
    rb"accept(?:-[a-z-]+)?|access-control-[a-z-]+|authorization|cache-control|connection"
    rb"|content-[a-z-]+|cookie|host|if-[a-z-]+|origin|pragma|proxy-[a-z-]+|referer|sec-[a-z-]+"
    rb"|transfer-encoding|upgrade(?:-insecure-requests)?|user-agent|x-forwarded-[a-z-]+"
    rb"|x-requested-with"
)
"""Fields of the HTTP requests that browsers and proxies send (RFC 9110), in any case."""

BEGINNINGS = {
    # A ClientHello (RFC 8446 §5.1): its session ID and its ticket may hold commands.
    "TLS": rb"\x16\x03",
    "HTTP": rb"[ \t]*+(?:(?i:%b)[ \t]*:|HTTP/[0-9])" % HEADERS,
    "SSH": rb"SSH-[0-9]",
    "SMTP": rb"(?i:MAIL FROM|RCPT TO):",
    "XML": rb"<(?:\?xml|policy-file-request|stream:)",
    "PROXY": rb"PROXY (?:TCP[46]|UNKNOWN)",
    "JDWP": rb"JDWP-Handshake",
    "RMI": rb"JRMI\x00",
    "AMQP": rb"AMQP[\x00-\x03]",
    # What curl sends before the words of a dict: URL.
    "DICT": rb"CLIENT libcurl ",
    # What a web server sends to an application's server, with a page's body behind it. The sizes
    # may be any bytes.
    "SCGI": rb"[0-9]{1,10}:CONTENT_LENGTH\x00",
    "uwsgi": rb"[\x00-\x08\x0b\x0c\x0e-\x1f]..\x00",
    "AJP": rb"\x124..\x02",
    # Redis, whose strings stand on lines of their own (as do the data of STORAGE).
    "RESP": rb"\*[0-9]",
    # The path in a URL comes after these.
    "git": rb"[0-9a-f]{4}git-",
    "BitTorrent": rb"\x13BitTorrent",
    # Two control characters within the first four bytes, or eight without a space, behind which an
    # argument begins: SOCKS, STUN and TURN, SMB, RDP, DNS, LDAP, MQTT, X11, SSL 2, and the
    # protocols of most databases.
    "binary": rb"(?:.{0,2}?|[^ \t]{3,6}?)[\x00-\x08\x0b\x0c\x0e-\x1f]{2}",
}
"""Beginnings of lines, by protocol, the first that fits. What follows them does not matter."""

STORAGE = {
    "memcached": (
        rb"(?:set|add|replace|append|prepend|cas) [^ ]+ [0-9]+ -?[0-9]+ [0-9]+(?: |\r?\Z)"
        rb"|ms [^ ]+ [0-9]+(?: |\r?\Z)"
    ),
    "beanstalkd": rb"put [0-9]+ [0-9]+ [0-9]+ [0-9]+\r?\Z",
}
"""
Lines of clients of a store, by protocol: data follow them on the next line, which may be those of
a stranger. In small letters, as they must be.
"""

GREETINGS = {
    b"EHLO": "SMTP",
    b"HELO": "SMTP",
    b"LHLO": "SMTP",
    b"USER": "FTP",
    b"PASV": "FTP",
    b"NICK": "IRC",
}
"""First words of lines, in capitals, by which clients of a protocol begin."""

METHODS = frozenset(
    {b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"TRACE"}
)
"""Methods of HTTP. Before a target they are foreign without a version, too, as in HTTP/0.9."""


def _any_of(table: dict[str, bytes]) -> re.Pattern[bytes]:
    """Return what matches any of the regular expressions, each a group of that name."""
    groups = (b"(?P<%b>%b)" % (name.encode(), regex) for name, regex in table.items())
    return re.compile(b"|".join(groups), re.DOTALL)


_BEGINNING = _any_of(BEGINNINGS)
_STORAGE = _any_of(STORAGE)
# As whole words of a request line; HTTP requires capitals (RFC 9112 §2.3).
_VERSION = re.compile(rb"(HTTP|ICAP|RTSP|SIP)/[0-9]")
_LAST_WORD = re.compile(rb"[ \t](HTTP|ICAP|RTSP|SIP)/[0-9]+(?:\.[0-9]+)?[ \t\r]*\Z")
_LONGEST_VERSION = 32  # with spaces around it
# A path or a URL, as what follows most methods, or whom SIP's methods are for (RFC 3261 §8.1.1.1).
_TARGET = re.compile(rb"/|[A-Za-z][A-Za-z0-9+.-]*+://|(?i:sips?|tel):")


def foreign_protocol(
    line: bytes, is_command: Callable[[str], bool], *, whole: bool = True, too_long: bool = False
) -> str | None:
    """
    Return the name of the other protocol that a line opens, or None if it opens none.

    :param line: without its end; if it is not whole, its first bytes, some sixty of them if there
        are so many.
    :param is_command: returns whether the server has a command of this name, in any case.
    :param whole: whether this is all of the line. If not, it is another protocol's only if it is so
        whatever follows.
    :param too_long: whether the line is over the limit, so that its end is not known; if it begins
        as a request line, it is taken for one.
    """
    beginning = _BEGINNING.match(line)
    if beginning is not None:
        return beginning.lastgroup
    words = line.split(None, 3)
    if len(words) > 2 and (version := _VERSION.match(words[2])):
        return version[1].decode()
    if not words or (len(words) == 1 and not (whole or line[-1:].isspace())):
        # There is no first word yet.
        return None
    first = words[0].upper()
    to_target = len(words) > 1 and _TARGET.match(words[1]) is not None
    if to_target and (too_long or (whole and _LAST_WORD.search(line[-_LONGEST_VERSION:]))):
        return "HTTP"
    protocol = GREETINGS.get(first)
    if first in METHODS and (to_target or too_long):
        protocol = "HTTP"
    if whole and (storage := _STORAGE.match(line)):
        protocol = storage.lastgroup
    # Asked last: few lines come so far.
    return None if protocol is None or is_command(first.decode()) else protocol
