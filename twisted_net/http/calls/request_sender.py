"""Requests of one call as they are sent: with an encoded URL, and with the cookies of the call."""

from __future__ import annotations

from twisted_net.http.bodies import BodyResponse
from twisted_net.http.call import Call
from twisted_net.http.calls.body import RequestBody
from twisted_net.http.calls.cookies import CallCookies
from twisted_net.http.fields import HeaderFields
from twisted_net.http.request import OutgoingRequest, Send
from twisted_net.http.urls import encode_url, parse_target


class RequestSender:
    """
    Sends the requests of one call, with its cookies.

    Only those cookies count that came over the network: a stored ``Set-Cookie`` is one that the jar
    has had already, and would bring back a cookie that was changed or deleted since.

    :param send: sends the requests of *call*.
    :param cookies: those of the call; None while there are none.
    """

    def __init__(self, send: Send, call: Call, cookies: CallCookies | None = None) -> None:
        self._send = send
        self._call = call
        self._cookies = cookies

    async def send(
        self, method: str, url: str, fields: HeaderFields, body: RequestBody
    ) -> BodyResponse:
        """Make one request and return its response; its cookies are sent with the next request."""
        target = parse_target(encode_url(url))
        cookies = self._cookies
        # A field that the caller set replaces all cookies.
        if cookies is not None and "cookie" not in fields:
            value = cookies.header(target.url)
            if value is not None:
                sent = value.encode("latin-1", "replace").decode("latin-1")
                fields = fields.added("Cookie", sent)
        request = OutgoingRequest(method, target, fields, body.producer())
        response = await self._send(request, self._call)
        lines = self._call.set_cookies
        if lines is None:
            lines = response.fields.get_all("set-cookie")
        if lines:
            if cookies is None:
                cookies = self._cookies = CallCookies(None, target.url, None)
            cookies.store(target.url, lines)
        return response
