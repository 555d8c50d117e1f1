"""Who observes which resource (RFC 7641), and who is due to be told of a change."""

from __future__ import annotations

from collections import OrderedDict

from twisted_net.coap.codec import Options
from twisted_net.net.addresses import Source


class Observation:
    """
    One observer of one resource.

    :ivar options: those of the request, by which each notification is made.
    :ivar sequence: of the last notification, for its Observe option (24 bits).
    :ivar busy: whether a notification is under way.
    :ivar stale: whether the resource has changed since the one that is under way.
    """

    __slots__ = ("busy", "options", "resource", "sequence", "source", "stale", "token")

    def __init__(self, resource: str, source: Source, token: bytes, options: Options) -> None:
        self.resource = resource
        self.source = source
        self.token = token
        self.options = options
        self.sequence = 0
        self.busy = False
        self.stale = False

    def next_sequence(self) -> int:
        """Count a notification, and give its number."""
        self.sequence = (self.sequence + 1) & 0xFFFFFF
        return self.sequence


class Observers:
    """
    The observations of all resources.

    Of one observer at most one notification is under way; when the resource changes meanwhile,
    it is told once more after that, with what is true then (RFC 7641 §4.5.2). An observer thus
    sets its own pace, and nothing waits in a queue.

    :param most: observations in all; a further one is refused.
    :param most_per_peer: observations of one peer.
    """

    def __init__(self, most: int, most_per_peer: int) -> None:
        self._most = most
        self._most_per_peer = most_per_peer
        self._all: dict[tuple[Source, bytes], Observation] = {}
        self._resources: dict[str, OrderedDict[tuple[Source, bytes], Observation]] = {}
        self._per_peer: dict[Source, list[Observation]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, observation: Observation) -> bool:
        return self._all.get((observation.source, observation.token)) is observation

    def register(
        self, resource: str, source: Source, token: bytes, options: Options
    ) -> Observation | None:
        """
        Add an observation, in place of the peer's own with the same token.

        :return: None where a limit is reached: the request is then answered once (§4.1).
        """
        self.cancel(source, token)
        held = self._per_peer.get(source, [])
        if len(self._all) >= self._most or len(held) >= self._most_per_peer:
            return None
        observation = Observation(resource, source, token, options)
        self._all[source, token] = observation
        self._resources.setdefault(resource, OrderedDict())[source, token] = observation
        self._per_peer.setdefault(source, held).append(observation)
        return observation

    def cancel(self, source: Source, token: bytes) -> None:
        """Remove the observation with this token, where there is one."""
        observation = self._all.get((source, token))
        if observation is not None:
            self.drop(observation)

    def drop(self, observation: Observation) -> None:
        """Remove an observation, where it is still there."""
        if observation not in self:
            return
        key = observation.source, observation.token
        del self._all[key]
        of_resource = self._resources[observation.resource]
        del of_resource[key]
        if not of_resource:
            del self._resources[observation.resource]
        held = self._per_peer[observation.source]
        held.remove(observation)
        if not held:
            del self._per_peer[observation.source]

    def of(self, resource: str) -> list[Observation]:
        """Give the observations of one resource, oldest first."""
        return list(self._resources.get(resource, {}).values())

    def observed(self, resource: str) -> bool:
        """Tell whether a resource has observers."""
        return resource in self._resources

    def of_peer(self, source: Source) -> list[Observation]:
        """Give the observations of one peer, oldest first."""
        return list(self._per_peer.get(source, ()))

    def all(self) -> list[Observation]:
        """Give all observations."""
        return list(self._all.values())

    def changed(self, observation: Observation) -> bool:
        """Note that the resource has changed; tell whether its observer is to be told now."""
        if observation.busy:
            observation.stale = True
            return False
        observation.busy = True
        return True

    def delivered(self, observation: Observation) -> bool:
        """Note that a notification has arrived; tell whether another one is due at once."""
        observation.busy = observation.stale and observation in self
        observation.stale = False
        return observation.busy
