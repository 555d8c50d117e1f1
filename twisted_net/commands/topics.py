"""Topic commands: SUBSCRIBE, UNSUBSCRIBE, PUBLISH, RETAIN."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted_net.commands.registry import Commands, Fields, Request
from twisted_net.sessions.session import Session
from twisted_net.topics.messages import structure_of
from twisted_net.topics.settings import WhenSlow


def declare_topics(commands: Commands) -> None:
    """Add SUBSCRIBE, UNSUBSCRIBE, PUBLISH and RETAIN to a registry."""
    declare = commands.command
    subscribe_help = "Receive the messages of a topic, or of those matching a pattern."
    declare("SUBSCRIBE", help=subscribe_help, connected=True)(_subscribe)
    unsubscribe_help = "End a subscription; without a pattern, all of them."
    declare("UNSUBSCRIBE", help=unsubscribe_help, connected=True)(_unsubscribe)
    publish_help = "Send a message, a text or JSON, to all subscribers of a topic."
    declare("PUBLISH", help=publish_help, json_tail=True)(_publish)
    retain_help = "Publish a message, and keep it for later subscribers; without one, keep none."
    declare("RETAIN", help=retain_help, json_tail=True)(_retain)


def mailbox_figures(session: Session) -> dict[str, object]:
    """Return what CLIENTS shows of a client's subscriptions."""
    mailbox = session.mailbox
    if mailbox is None:
        return {"subscriptions": 0, "waiting": 0, "dropped": 0}
    return {
        "subscriptions": session.sessions.topics.count(mailbox),
        "waiting": mailbox.waiting,
        "dropped": mailbox.dropped,
    }


def _subscribe(
    request: Request, pattern: str, when_slow: WhenSlow | None = None
) -> Fields | Awaitable[Fields]:
    session = request.session
    decided = session.sessions.hooks.subscribing(session, pattern)
    if isinstance(decided, str):
        return _subscribe_to(session, decided, when_slow)
    return _subscribe_later(session, decided, when_slow)


async def _subscribe_later(
    session: Session, decided: Awaitable[str], when_slow: WhenSlow | None
) -> Fields:
    return _subscribe_to(session, await decided, when_slow)


def _subscribe_to(session: Session, pattern: str, when_slow: WhenSlow | None) -> Fields:
    session.check_subscribe(pattern)
    mailbox = session.open_mailbox()
    count = mailbox.subscribe(pattern)
    if when_slow is not None:
        mailbox.when_slow = when_slow
    return Fields(pattern=pattern, subscriptions=count, when_slow=mailbox.when_slow)


def _unsubscribe(request: Request, pattern: str | None = None) -> Fields:
    mailbox, topics = request.session.mailbox, request.session.sessions.topics
    if mailbox is None:
        return Fields(removed=0, subscriptions=0)
    removed = (
        topics.unsubscribe_all(mailbox) if pattern is None else topics.unsubscribe(mailbox, pattern)
    )
    return Fields(removed=removed, subscriptions=topics.count(mailbox))


def _publish(request: Request, topic: str, *words: str) -> Fields:
    return Fields(topic=topic, receivers=_send(request.session, topic, words))


def _retain(request: Request, topic: str, *words: str) -> Fields:
    receivers = _send(request.session, topic, words, retain=True)
    return Fields(topic=topic, receivers=receivers, retained=bool(words))


def _send(session: Session, topic: str, words: tuple[str, ...], retain: bool | None = None) -> int:
    session.check_publish(topic)
    value = structure_of(" ".join(words))
    topics = session.sessions.topics
    return topics.publish(topic, value, sender=session.sender, retain=retain)
