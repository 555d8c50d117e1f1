"""Topic commands: SUBSCRIBE, UNSUBSCRIBE, PUBLISH."""

from __future__ import annotations

from twisted_net.commands.registry import Commands, Fields, Request
from twisted_net.sessions import Session
from twisted_net.topics import WhenSlow


def declare_topics(commands: Commands) -> None:
    """Add SUBSCRIBE, UNSUBSCRIBE and PUBLISH to a registry."""
    declare = commands.command
    subscribe_help = "Receive the messages of a topic, or of those matching a pattern."
    declare("SUBSCRIBE", help=subscribe_help, connected=True)(_subscribe)
    unsubscribe_help = "End a subscription; without a pattern, all of them."
    declare("UNSUBSCRIBE", help=unsubscribe_help, connected=True)(_unsubscribe)
    declare("PUBLISH", help="Send a message to all subscribers of a topic.")(_publish)


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


def _subscribe(request: Request, pattern: str, when_slow: WhenSlow | None = None) -> Fields:
    permissions = request.session.permissions
    if permissions is not None:
        permissions.check_subscribe(pattern)
    mailbox = request.session.open_mailbox()
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
    permissions = request.session.permissions
    if permissions is not None:
        permissions.check_publish(topic)
    receivers = request.session.sessions.topics.publish(topic, " ".join(words))
    return Fields(topic=topic, receivers=receivers)
