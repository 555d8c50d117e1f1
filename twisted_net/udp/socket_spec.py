"""Where datagrams are served: a socket described in one string, as Twisted describes endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import TypeAlias

from attrs import frozen

from twisted_net.net.addresses import format_address

MIN_BUFFER = 4096
"""The smallest buffer that may be asked of the kernel, in bytes."""

MAX_BUFFER = 1 << 30
"""The largest buffer that may be asked of the kernel, in bytes."""

_SETTINGS = {
    "udp": ("interface", "rcvbuf", "sndbuf", "reuseport"),
    "fd": ("rcvbuf", "sndbuf"),
    "systemd": ("rcvbuf", "sndbuf"),
}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TRUTHS = {"yes": True, "no": False}


@frozen
class Bound:
    """
    A port of a numeric address, to be bound here.

    :param port: 0 for any that is free.
    :param interface: ``""`` for all of IPv4; a link-local address has its scope: ``fe80::1%eth0``.
    :param reuse_port: whether other processes of the same user may bind the same port too; the
        kernel then spreads the clients over them (``SO_REUSEPORT``, socket(7)).
    """

    port: int
    interface: str = "127.0.0.1"
    reuse_port: bool = False

    def __str__(self) -> str:
        return format_address(self.interface, self.port)


@frozen
class Inherited:
    """A socket that this process has from its parent, by its descriptor."""

    descriptor: int

    def __str__(self) -> str:
        return f"fd:{self.descriptor}"


@frozen
class Activated:
    """
    A socket that systemd opened and passed on (sd_listen_fds(3)).

    :param which: its index among all that were passed, from 0, or its ``FileDescriptorName``.
    """

    which: int | str

    def __str__(self) -> str:
        return f"systemd:{self.which}"


Origin: TypeAlias = Bound | Inherited | Activated
"""How a socket comes to be."""


@frozen
class Place:
    """
    A socket on which datagrams are served.

    :param receive_buffer: asked of the kernel, in bytes; None for that of the limits.
    :param send_buffer: likewise.
    """

    origin: Origin
    receive_buffer: int | None = None
    send_buffer: int | None = None

    def __str__(self) -> str:
        return str(self.origin)


def parse_place(text: str) -> Place:
    r"""
    Read the description of a socket.

    - ``udp:9999``, with ``interface=::1`` (in brackets, or its colons as ``\:``), and
      ``reuseport=yes``;
    - ``fd:3``, ``systemd:0`` or ``systemd:name``: one that was opened before;
    - with each, ``rcvbuf=4M`` and ``sndbuf=512K``.

    >>> str(parse_place("udp:9999:interface=[::1]:rcvbuf=4M"))
    '[::1]:9999'

    :raises ValueError: for anything else, saying what is wrong in which part, and what is allowed.
    """
    try:
        return _parse(list(_split(text)))
    except ValueError as error:
        raise ValueError(f"{_shown(text)} describes no socket: {error}") from None


def check_interface(interface: str) -> None:
    """
    Refuse what no socket can be bound to: a name, or a link-local address without its scope.

    :raises ValueError: saying which.
    """
    if not interface:
        return
    try:
        address = ip_address(interface)
    except ValueError:
        raise ValueError(
            'interface must be a numeric address, such as 127.0.0.1 or ::1, or "", '
            f"not {_shown(interface)}"
        ) from None
    if address.version == 6 and address.is_link_local and address.scope_id is None:
        raise ValueError(f"interface must say on which link {interface} is, as in {interface}%eth0")


def _parse(parts: list[str]) -> Place:
    kind, *rest = parts
    if kind not in _SETTINGS:
        raise ValueError(f"it must begin with {_listed(f'{name}:' for name in _SETTINGS)}")
    if not rest or "=" in rest[0]:
        raise ValueError(f"{kind}: must be followed by {_FIRST[kind]}")
    first, *pairs = rest
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name not in _SETTINGS[kind]:
            raise ValueError(f"{kind} has no {_shown(name)}; it has {_listed(_SETTINGS[kind])}")
        if not equals:
            raise ValueError(f"{name} has no value; write {name}=…")
        if name in settings:
            raise ValueError(f"{name} is there twice")
        settings[name] = value
    return Place(
        _origin(kind, first, settings),
        _size("rcvbuf", settings.get("rcvbuf")),
        _size("sndbuf", settings.get("sndbuf")),
    )


_FIRST = {
    "udp": "a port, as in udp:9999",
    "fd": "the number of a descriptor, as in fd:3",
    "systemd": "an index or a name, as in systemd:0",
}


def _origin(kind: str, first: str, settings: dict[str, str]) -> Origin:
    if kind == "systemd":
        if not first:
            raise ValueError(f"systemd: must be followed by {_FIRST[kind]}")
        return Activated(int(first) if _is_number(first) else first)
    if kind == "fd":
        if not _is_number(first):
            raise ValueError(f"the descriptor must be a number from 0, not {_shown(first)}")
        return Inherited(int(first))
    if not _is_number(first) or int(first) > 65_535:
        raise ValueError(f"the port must be a number from 0 to 65535, not {_shown(first)}")
    interface = settings.get("interface", "127.0.0.1")
    check_interface(interface)
    reuse = settings.get("reuseport", "no")
    if reuse not in _TRUTHS:
        raise ValueError(f"reuseport must be {_listed(_TRUTHS)}, not {_shown(reuse)}")
    return Bound(int(first), interface, _TRUTHS[reuse])


def _size(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    unit = _UNITS.get(text[-1:].upper(), 1)
    number = text[:-1] if unit > 1 else text
    if not _is_number(number) or not MIN_BUFFER <= int(number) * unit <= MAX_BUFFER:
        raise ValueError(
            f"{name} must be bytes from {MIN_BUFFER} to {MAX_BUFFER}, as 65536, 512K or 4M, "
            f"not {_shown(text)}"
        )
    return int(number) * unit


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:64] + "…")


def _is_number(text: str) -> bool:
    # At most ten digits: Python refuses to read thousands of them.
    return text.isascii() and text.isdigit() and len(text) <= 10


def _split(text: str) -> Iterator[str]:
    """Cut at colons, but for those with a backslash before them or in brackets."""
    part: list[str] = []
    characters = iter(text)
    bracketed = False
    for character in characters:
        if character == "\\":
            part.append(next(characters, "\\"))
        elif character == "[" and not bracketed:
            bracketed = True
        elif character == "]" and bracketed:
            bracketed = False
        elif character == ":" and not bracketed:
            yield "".join(part)
            part.clear()
        else:
            part.append(character)
    if bracketed:
        raise ValueError("a bracket is not closed")
    yield "".join(part)


def _listed(names: Iterator[str] | dict[str, bool] | tuple[str, ...]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
