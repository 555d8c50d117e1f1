"""Socket specs: a UDP socket to serve on, described in a string as Twisted's endpoints are."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import TypeAlias

from attrs import frozen

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.addresses import format_address

MIN_BUFFER = 4096
"""Smallest socket buffer that a spec may request, in bytes."""

MAX_BUFFER = 1 << 30
"""Largest socket buffer that a spec may request, in bytes."""

_SETTINGS = {
    "udp": ("interface", "rcvbuf", "sndbuf", "reuseport"),
    "fd": ("rcvbuf", "sndbuf"),
    "systemd": ("rcvbuf", "sndbuf"),
}
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TRUTHS = {"yes": True, "no": False}


@frozen
class BoundSocket:
    """
    A socket that this process binds to a port of a numeric address.

    :param port: 0 for any free port.
    :param interface: ``""`` for all IPv4 interfaces; a link-local address needs its scope:
        ``fe80::1%eth0``.
    :param reuse_port: whether other processes of the same user may bind the same port; the
        kernel then distributes the clients over them (``SO_REUSEPORT``, socket(7)).
    """

    port: int
    interface: str = "127.0.0.1"
    reuse_port: bool = False

    def __str__(self) -> str:
        return format_address(self.interface, self.port)


@frozen
class InheritedSocket:
    """A socket inherited from the parent process, by its file descriptor."""

    descriptor: int

    def __str__(self) -> str:
        return f"fd:{self.descriptor}"


@frozen
class SystemdSocket:
    """
    A socket opened and passed by systemd (sd_listen_fds(3)).

    :param which: its index among all passed sockets, from 0, or its ``FileDescriptorName``.
    """

    which: int | str

    def __str__(self) -> str:
        return f"systemd:{self.which}"


Origin: TypeAlias = BoundSocket | InheritedSocket | SystemdSocket
"""Where a socket comes from."""


@frozen
class SocketSpec:
    """
    A socket on which to serve datagrams, and its buffers.

    :param receive_buffer: requested of the kernel, in bytes; None for that of the limits.
    :param send_buffer: likewise.
    """

    origin: Origin
    receive_buffer: int | None = None
    send_buffer: int | None = None

    def __str__(self) -> str:
        return str(self.origin)


@check_arguments
def parse_socket_spec(text: str) -> SocketSpec:
    r"""
    Parse a socket spec.

    - ``udp:9999``, optionally with ``interface=::1`` (in brackets, or its colons as ``\:``) and
      ``reuseport=yes``;
    - ``fd:3``, ``systemd:0`` or ``systemd:name``: a socket that is open already;
    - each optionally with ``rcvbuf=4M`` and ``sndbuf=512K``.

    >>> str(parse_socket_spec("udp:9999:interface=[::1]:rcvbuf=4M"))
    '[::1]:9999'

    :raises ValueError: for anything else, with the part that is wrong and what is allowed.
    """
    try:
        return _parse(list(_split(text)))
    except ValueError as error:
        raise ValueError(f"{_shown(text)} is not a socket spec: {error}") from None


def check_interface(interface: str) -> None:
    """
    Check that a socket can be bound to *interface*.

    :raises ValueError: for a name, and for a link-local address without its scope.
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
    if isinstance(address, IPv6Address) and address.is_link_local and address.scope_id is None:
        raise ValueError(
            f"interface needs a scope, as {interface} is link-local: write {interface}%eth0"
        )


def _parse(parts: list[str]) -> SocketSpec:
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
            raise ValueError(f"{name} is set twice")
        settings[name] = value
    return SocketSpec(
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
        return SystemdSocket(int(first) if _is_number(first) else first)
    if kind == "fd":
        if not _is_number(first):
            raise ValueError(f"the descriptor must be a number from 0, not {_shown(first)}")
        return InheritedSocket(int(first))
    if not _is_number(first) or int(first) > 65_535:
        raise ValueError(f"the port must be a number from 0 to 65535, not {_shown(first)}")
    interface = settings.get("interface", "127.0.0.1")
    check_interface(interface)
    reuse = settings.get("reuseport", "no")
    if reuse not in _TRUTHS:
        raise ValueError(f"reuseport must be {_listed(_TRUTHS)}, not {_shown(reuse)}")
    return BoundSocket(int(first), interface, _TRUTHS[reuse])


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
    # At most ten digits: int() raises for thousands of them.
    return text.isascii() and text.isdigit() and len(text) <= 10


def _split(text: str) -> Iterator[str]:
    """Split at colons, except those after a backslash or in brackets."""
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
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
