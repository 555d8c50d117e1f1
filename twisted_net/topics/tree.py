"""Topic tree: the patterns of subscribers by level, and those that match a topic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from twisted_net.errors import BadTopic

ONE_LEVEL = "*"
"""Wildcard in a pattern: any one level."""

ALL_LEVELS = ">"
"""Wildcard at the end of a pattern: one or more levels."""

LEVEL_BYTES = 390
"""Memory of a level of a pattern that no other pattern has, beside its name, as measured."""

_S = TypeVar("_S")


def split_topic(topic: str, max_topic: int, max_levels: int) -> list[str]:
    """
    Split a topic or pattern into levels.

    :raises BadTopic: if it is too long or deep, or has an empty level or white space.
    """
    if len(topic) > max_topic or len(topic.encode()) > max_topic:
        raise BadTopic(f"a topic has at most {max_topic} bytes")
    levels = topic.split(".")
    if len(levels) > max_levels:
        raise BadTopic(f"a topic has at most {max_levels} levels")
    if "" in levels:
        raise BadTopic("a topic has no empty level: neither at an end nor between two dots")
    if topic.split() != [topic] or not topic.isprintable():
        raise BadTopic("a topic has no white space and only printable characters")
    return levels


def check_pattern(levels: list[str]) -> None:
    """
    Check the wildcards of a pattern.

    :raises BadTopic: if one does not stand for a whole level, or is not where it may be.
    """
    for i, level in enumerate(levels):
        if level == ALL_LEVELS and i + 1 < len(levels):
            raise BadTopic(f"{ALL_LEVELS} may stand only at the end of a pattern")
        if len(level) > 1 and (ONE_LEVEL in level or ALL_LEVELS in level):
            raise BadTopic(f"{ONE_LEVEL} and {ALL_LEVELS} stand for whole levels, unlike {level!r}")


class TopicNode(Generic[_S]):
    """One level in the tree of patterns, and the subscribers of the pattern that ends here."""

    __slots__ = ("children", "pattern", "subscribers")

    def __init__(self) -> None:
        self.children: dict[str, TopicNode[_S]] = {}
        self.pattern = ""  # until one ends here
        # A dict for its order: the oldest subscriber gets a message first.
        self.subscribers: dict[_S, None] = {}

    def add(self, levels: list[str], subscriber: _S, pattern: str) -> int:
        """Add a subscriber; return the bytes of the levels that are new."""
        node: TopicNode[_S] = self
        size = 0
        for level in levels:
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = TopicNode()
                size += LEVEL_BYTES + len(level)
            node = child
        node.pattern = pattern
        node.subscribers[subscriber] = None
        return size

    def remove(self, pattern: str, subscriber: _S) -> int:
        """
        Remove a subscriber that is there, and the levels that are then unused.

        :return: the bytes of these levels.
        """
        size = 0
        levels = pattern.split(".")
        path = [self]
        for level in levels:
            path.append(path[-1].children[level])
        del path[-1].subscribers[subscriber]
        while len(path) > 1 and not path[-1].children and not path[-1].subscribers:
            path.pop()
            unused = levels[len(path) - 1]
            del path[-1].children[unused]
            size += LEVEL_BYTES + len(unused)
        return size

    def matching(self, levels: list[str]) -> Iterator[TopicNode[_S]]:
        """Iterate over the nodes whose subscribers are those of a topic: the patterns' ends."""
        nodes = [self]
        for level in levels:
            following = []
            for node in nodes:
                children = node.children
                if (rest := children.get(ALL_LEVELS)) is not None:
                    yield rest
                if (child := children.get(level)) is not None:
                    following.append(child)
                if (child := children.get(ONE_LEVEL)) is not None:
                    following.append(child)
            nodes = following
        for node in nodes:
            if node.subscribers:
                yield node
