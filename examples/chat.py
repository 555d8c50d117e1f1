"""
A chat: ``twistd -n net --commands chat:app`` in this folder; ``[app.chat]`` has its settings.

``JOIN tea Ann``, ``SAY tea hello``, ``LEAVE tea``; who is in a room sees who comes and goes, too.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

from msgspec import Meta

from twisted_net.commands import Request
from twisted_net.config import Record
from twisted_net.errors import CommandError
from twisted_net.service import Application, ApplicationContext
from twisted_net.sessions import Session

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_]{1,32}$")]


class ChatSettings(Record, frozen=True):
    members: Annotated[int, Meta(ge=1, description="clients in one room")] = 1000


app = Application("chat", ChatSettings)
chat: list[ApplicationContext] = []
rooms: dict[str, set[str]] = defaultdict(set)  # the names in each room
names: dict[Session, dict[str, str]] = defaultdict(dict)  # those of each client, by room
app.start(chat.append)


@app.commands.command(connected=True)
def join(request: Request, room: Name, name: Name) -> list[str]:
    """Enter a room; the answer has who is there."""
    inside, limit = rooms.get(room, ()), chat[-1].settings.members
    if name in inside or room in names.get(request.session, ()) or len(inside) >= limit:
        raise CommandError("the name is taken, you are there already, or the room is full")
    request.session.open_mailbox().subscribe(f"room.{room}")
    rooms[room].add(name)
    names[request.session][room] = name
    tell(room, name, "joined")
    return sorted(rooms[room])


@app.commands.command(connected=True)
def say(request: Request, room: Name, *words: str) -> int:
    """Say something; the answer is how many hear it."""
    if (name := names.get(request.session, {}).get(room)) is None:
        raise CommandError("you are not in that room")
    return tell(room, name, "said", " ".join(words))


@app.commands.command("LEAVE", connected=True)
def leave_room(request: Request, room: Name) -> None:
    """Leave a room."""
    if room in names.get(request.session, ()):
        chat[-1].topics.unsubscribe(request.session.open_mailbox(), f"room.{room}")
        leave(request.session, room)


@app.hooks.on_login
@app.hooks.on_close
def leave_all(session: Session, *end: object) -> None:
    for room in list(names.get(session, ())):
        leave(session, room)


def leave(session: Session, room: str) -> None:
    name = names[session].pop(room)
    rooms[room].discard(name)
    if not names[session]:
        del names[session]
    if not rooms[room]:
        del rooms[room]
    tell(room, name, "left")


def tell(room: str, who: str, what: str, text: str = "") -> int:
    return chat[-1].topics.publish(f"room.{room}", {"who": who, "what": what, "text": text})
