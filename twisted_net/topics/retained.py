"""Retained messages: the last one of each topic that is to be kept for later subscribers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from twisted_net.errors import TooManyRetained
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.topics.messages import TopicMessage
from twisted_net.topics.tree import ALL_LEVELS, LEVEL_BYTES, ONE_LEVEL, TopicNode

MESSAGE_BYTES = 400
"""Memory of a retained message, beside its line, its value and the levels of its topic."""


class _Level:
    """One level in the tree of topics, and the message of the topic that ends here."""

    __slots__ = ("children", "message", "size")

    def __init__(self) -> None:
        self.children: dict[str, _Level] = {}
        self.message: TopicMessage | None = None
        self.size = 0  # bytes of the message


class RetainedMessages:
    """
    The last message of each topic, within bounds of number and bytes.

    At a bound no topic gives way to another: a client could otherwise drop the values of others.

    :param patterns: of the topics whose messages are all retained.
    :param limit: topics.
    :param max_bytes: of all together.
    :ivar changed: called with the levels of a topic and its new message, or None if it has none any
        more; it must neither retain nor drop one.
    :ivar refused: messages that were to be retained by their topic, and found no room.
    """

    def __init__(
        self, patterns: Iterable[str], limit: int, max_bytes: int, memory: MemoryLedger
    ) -> None:
        self._limit = limit
        self._kept: MemoryAccount[RetainedMessages] = memory.account("retained", max_bytes)
        self._root = _Level()
        self._count = 0
        self.refused = 0
        self.changed: Callable[[Sequence[str], TopicMessage | None], None] | None = None
        self._patterns: TopicNode[str] = TopicNode()
        for pattern in patterns:
            self._patterns.add(pattern.split("."), pattern, pattern)

    def __len__(self) -> int:
        """Return how many messages are retained."""
        return self._count

    def covers(self, levels: list[str]) -> bool:
        """Whether all messages of a topic are retained."""
        return next(self._patterns.matching(levels), None) is not None

    def check_room(self, levels: Sequence[str], size: int) -> None:
        """
        Check that a message may be retained.

        :param size: bytes of its line.
        :raises TooManyRetained: if not.
        """
        level = self._find(levels)
        if level is None or level.message is None:
            if self._count >= self._limit:
                raise TooManyRetained(self._limit, "topics")
            before = 0
        else:
            before = level.size
        if self._kept.total - before + 2 * size + MESSAGE_BYTES > self._kept.limit or (
            size > before and self._kept.full
        ):
            raise TooManyRetained(self._kept.limit, "bytes")

    def keep(self, levels: Sequence[str], message: TopicMessage) -> bool:
        """
        Retain a message in place of the one before; an empty text retains none.

        :return: whether it is retained. Where there is no room for it the one before is dropped
            too, as it is no longer the last.
        """
        if message.value == "":
            self.drop(levels)
            return False
        try:
            self.check_room(levels, len(message.line))
        except TooManyRetained:
            self.drop(levels)
            self.refused += 1
            return False
        level, grown = self._root, 0
        for name in levels:
            child = level.children.get(name)
            if child is None:
                child = level.children[name] = _Level()
                grown += LEVEL_BYTES + len(name)
            level = child
        if level.message is None:
            self._count += 1
        size = 2 * len(message.line) + MESSAGE_BYTES
        grown += size - level.size
        level.message, level.size = message, size
        self._kept.add(self, grown)
        if self.changed is not None:
            self.changed(levels, message)
        return True

    def drop(self, levels: Sequence[str]) -> None:
        """Retain no message of a topic any more. Idempotent."""
        path = [self._root]
        for name in levels:
            child = path[-1].children.get(name)
            if child is None:
                return
            path.append(child)
        last = path[-1]
        if last.message is None:
            return
        if self.changed is not None:
            self.changed(levels, None)
        shrunk = last.size
        last.message, last.size = None, 0
        self._count -= 1
        while len(path) > 1 and not path[-1].children and path[-1].message is None:
            path.pop()
            name = levels[len(path) - 1]
            del path[-1].children[name]
            shrunk += LEVEL_BYTES + len(name)
        self._kept.add(self, -shrunk)

    def get(self, levels: Sequence[str]) -> TopicMessage | None:
        """Return the message of a topic, or None."""
        level = self._find(levels)
        return None if level is None else level.message

    def matching(self, levels: Sequence[str]) -> Iterator[TopicMessage | None]:
        """
        Iterate over the messages of the topics that match a pattern; messages may come and go.

        :return: yields None for what was looked at and is no message, so that the work between two
            values is bounded.
        """
        return self._walk(self._root, levels, 0)

    def _find(self, levels: Sequence[str]) -> _Level | None:
        level: _Level | None = self._root
        for name in levels:
            if level is None:
                return None
            level = level.children.get(name)
        return level

    def _walk(
        self, level: _Level, levels: Sequence[str], depth: int
    ) -> Iterator[TopicMessage | None]:
        # At most as deep as a topic has levels.
        if depth == len(levels):
            yield level.message
            return
        name = levels[depth]
        if name == ALL_LEVELS:
            for child in list(level.children.values()):
                yield child.message
                yield from self._walk(child, levels, depth)
        elif name == ONE_LEVEL:
            for child in list(level.children.values()):
                yield None
                yield from self._walk(child, levels, depth + 1)
        elif (found := level.children.get(name)) is not None:
            yield from self._walk(found, levels, depth + 1)
