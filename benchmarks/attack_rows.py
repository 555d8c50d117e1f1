"""The attacks by name: how the server is configured, and what must hold meanwhile."""

from __future__ import annotations

from attrs import frozen

from benchmarks.hostile_origin import ADDRESS as HOSTILE_ORIGIN

MB = 1e6

OPEN = """
[udp]
enabled = false
[tcp]
port = {port}
max_connections = 12_000
"""
"""The defaults, with room for 10,000 attackers and the others. Everybody may do everything."""


def open_with(listener: str) -> str:
    """
    Return the configuration of an open server that has a second listener, which is attacked.

    :param listener: its settings.
    """
    return f"{OPEN}[[listeners]]\nport = {{other}}\n{listener}\n"


SECURED = """
{more}
[udp]
enabled = false
[auth]
users = "{folder}/users.toml"
{auth}
[tcp]
port = {port}
max_connections = 12_000
connections_per_address = 20
connections_per_network = 100
commands_per_address = 100.0
bytes_per_address = 1_000_000.0
"""
"""As docs/howto/securing.rst has it for the open internet."""


def secured(more: str = "", auth: str = "", listener: str = "") -> str:
    """
    Return the configuration of a server with logins and limits.

    :param more: settings outside tables.
    :param auth: settings of logins.
    :param listener: those of a second listener, which is the one that is attacked.
    """
    if listener:
        listener = f"[[listeners]]\nport = {{other}}\n{listener}\n"
    return SECURED.replace("{more}", more).replace("{auth}", auth) + listener


TLS = 'tls = {{ certificate = "{folder}/cert.pem", key = "{folder}/key.pem" }}'
PROXY = 'proxy = ["127.0.0.1"]'
WEBSOCKET = 'protocol = "websocket"'
COAP = "[coap]\nenabled = true\nport = {other}\n"
FETCH_HERE = '[fetch]\nallow = ["127.0.0.1"]\n'
"""One may fetch of this machine, where nobody listens at the port that is asked."""

SLOW_COMMANDS = 'commands = ["slow_commands:commands"]'
"""The module that :mod:`benchmarks.attacked` writes into the folder of the server."""

PAGES = f"""{OPEN}
[http]
max_per_origin = 1000
retry.retries = 0
breaker.failures = 1_000_000
[fetch]
allow = ["{HOSTILE_ORIGIN[0]}"]
"""
"""Whoever fetches reaches a hostile server, again and again, however often that has failed."""

PATIENT = "max_anonymous = 12_000\ntimeout = 300"
"""Nobody is disconnected for want of a login: whatever arrives was sent by somebody else."""

PUBLIC = 'anonymous = ["*", "-@admin"]'
"""Without a login one may do all but administrate: what a page makes a browser say would run."""

COUNTED_COMMANDS = ("PUBLISH", "FETCH", "BROADCAST", "KILL")
"""Commands that a page says."""


@frozen
class Attack:
    """
    One attack, and what must hold.

    :param config: the server's configuration.
    :param memory: bytes by which the server may grow.
    :param why: what bounds its memory.
    :param counted: reasons of which the server must have counted some.
    :param ended: the reason under which every connection of the crowd must have been counted, or
        none.
    :param not_run: commands that must not have run.
    :param heard: whether those of the crowd who may hear a secret must have heard some of it. Who
        may not, never hears of it.
    :param dead_name_server: whether the names that the server looks up are asked of nobody.
    :param hostile_origin: whether :mod:`benchmarks.hostile_origin` serves its pages.
    """

    config: str
    memory: float
    why: str
    counted: tuple[str, ...] = ()
    ended: str = ""
    not_run: tuple[str, ...] = ()
    heard: bool = False
    dead_name_server: bool = False
    hostile_origin: bool = False

    @property
    def logins(self) -> bool:
        """Whether clients log in."""
        return "[auth]" in self.config

    @property
    def second_listener(self) -> bool:
        """Whether the crowd goes to the second listener, of TCP."""
        return "[[listeners]]" in self.config

    @property
    def other_port(self) -> bool:
        """Whether the crowd goes to another port than the others."""
        return self.second_listener or "[coap]" in self.config


NO_ATTACK = Attack(secured(), 60 * MB, "one password check at a time, of 32 MiB")

ATTACKS: dict[str, Attack] = {
    "slowloris": Attack(
        secured(), 60 * MB, "auth.max_anonymous and two per address", ("anonymous_limit",)
    ),
    "slowloris_tls": Attack(
        secured(listener=TLS),
        150 * MB,
        "tcp.max_handshakes, 50 KiB each",
        ("too_many_handshakes",),
    ),
    "never_reading": Attack(OPEN, 200 * MB, "tcp.max_pending, and 64 KiB for each of 200"),
    "single_bytes": Attack(OPEN, 20 * MB, "tcp.max_line for each of 100"),
    "flood_ping": Attack(OPEN, 30 * MB, "64 KiB in and out for each of 50"),
    "flood_help": Attack(OPEN, 30 * MB, "64 KiB in and out for each of 50"),
    "flood_clients": Attack(OPEN, 120 * MB, "what a turn of each of 50 may answer"),
    "flood_limited": Attack(secured(), 60 * MB, "tcp.commands_per_address", ("rate_limited",)),
    "flood_auth": Attack(
        secured(), 100 * MB, "one check at a time, of 32 MiB", ("auth_failed", "auth_delayed")
    ),
    "guessers": Attack(
        # Most are refused a place in the queue: few addresses fail so often that they are delayed.
        secured(),
        100 * MB,
        "one check at a time, of 32 MiB",
        ("auth_failed", "busy"),
    ),
    "slow_handlers": Attack(secured(SLOW_COMMANDS), 60 * MB, "tcp.max_blocking, tcp.max_pending"),
    "dead_name_server": Attack(
        secured(), 60 * MB, "tcp.max_pending of each of 32", dead_name_server=True
    ),
    "flood_connections": Attack(secured(), 60 * MB, "tcp.connections_per_address"),
    "flood_subscribe": Attack(
        OPEN, 150 * MB, "topics.max_subscriptions_in_all", ("subscription_limit",)
    ),
    "broadcast_leavers": Attack(
        OPEN, 120 * MB, "4 MiB of broadcasts, and 64 KiB in and out for each of 200", ("busy",)
    ),
    "mass_ends": Attack(
        SLOW_COMMANDS + OPEN,
        250 * MB,
        "8 commands, 4 subscriptions of each of 3,000, those just lost too, and 64 KiB of 375",
        ("connection_lost",),
    ),
    "fanout": Attack(
        OPEN, 400 * MB, "80 KiB, and topics.max_queue of shared lines, for each of 10 000"
    ),
    "strangers": Attack(
        secured(auth=PATIENT), 60 * MB, "some KiB for each of 5,000 connections", heard=True
    ),
    "page": Attack(
        secured(auth=PUBLIC),
        60 * MB,
        "nothing is kept",
        ended="cross_protocol",
        not_run=COUNTED_COMMANDS,
    ),
    "endless_lines": Attack(OPEN, 20 * MB, "tcp.max_line for each of 100", ("line_too_long",)),
    "proxy_lies": Attack(
        secured(listener=PROXY),
        60 * MB,
        "tcp.max_handshakes",
        ("untrusted_proxy", "handshake_failed"),
    ),
    "tls_records": Attack(open_with(TLS), 20 * MB, "what is read at once of each of 20"),
    "ws_frames": Attack(open_with(WEBSOCKET), 20 * MB, "what is read at once of each of 20"),
    "coap_options": Attack(
        OPEN + COAP, 60 * MB, "coap.max_exchange_bytes, coap.max_transfer_bytes, 64 options"
    ),
    "fetch_long": Attack(
        OPEN + FETCH_HERE, 200 * MB, "tcp.max_pending lines of 16 KiB for each of 50"
    ),
    "key_updates": Attack(
        open_with(TLS), 20 * MB, "tls_transport.RECORDS_WITHOUT_DATA", ("too_many_key_updates",)
    ),
    "hostile_pages": Attack(
        PAGES,
        100 * MB,
        "fetch.max_body of each of 176, as it is sent and in its answer",
        hostile_origin=True,
    ),
}
