"""Requests as the steps of a call take them: plain data, and the type of a step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define
from twisted.web.iweb import IBodyProducer

from twisted_net.http.fields import HeaderFields
from twisted_net.http.urls import HttpTarget

if TYPE_CHECKING:
    from twisted_net.http.bodies import BodyResponse
    from twisted_net.http.call import Call


@define(eq=False)
class OutgoingRequest:
    """
    One request. It is not changed, but copied.

    Not frozen, since it is made for each request: that takes a quarter of the time.

    :param method: as it is sent.
    :param fields: those of the caller; ``Host`` and the framing are added when it is sent.
    :param producer: sends the body; None if there is none.
    """

    method: str
    target: HttpTarget
    fields: HeaderFields
    producer: IBodyProducer | None = None

    def with_fields(self, fields: HeaderFields) -> OutgoingRequest:
        """Return it with other fields."""
        return OutgoingRequest(self.method, self.target, fields, self.producer)

    def with_replaced(self, changes: Sequence[tuple[str, str]]) -> OutgoingRequest:
        """Return it with these fields in place of its own of the same name."""
        return self.with_fields(self.fields.replaced(changes)) if changes else self


Send = Callable[[OutgoingRequest, "Call"], Awaitable["BodyResponse"]]
"""A step of a call: returns the response to a request, or raises, by the terms of the call."""
