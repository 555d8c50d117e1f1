"""
Topics: subscriptions, the messages that are published, and the mailboxes of clients.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.topics.messages import Subscriber as Subscriber
    from twisted_net.topics.messages import TopicMessage as TopicMessage
    from twisted_net.topics.registry import Topics as Topics
    from twisted_net.topics.settings import TopicSettings as TopicSettings
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "messages": ["Subscriber", "TopicMessage"],
            "registry": ["Topics"],
            "settings": ["TopicSettings"],
        },
    )
