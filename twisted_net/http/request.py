"""Requests of one call as they are sent: with an encoded URL, and with the cookies of the call."""

from __future__ import annotations

from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from twisted_net.http.call import Call
from twisted_net.http.calls.body import RequestBody
from twisted_net.http.calls.cookies import CallCookies
from twisted_net.http.calls.outcomes import result_of
from twisted_net.http.urls import encode_url, parse_target


class RequestSender:
    """
    Sends the requests of one call, with its cookies.

    Only those cookies count that came over the network: a stored ``Set-Cookie`` is one that the jar
    has had already, and would bring back a cookie that was changed or deleted since.

    :param agent: sends the requests of *call*.
    :param cookies: those of the call; None while there are none.
    """

    def __init__(self, agent: IAgent, call: Call, cookies: CallCookies | None = None) -> None:
        self._agent = agent
        self._call = call
        self._cookies = cookies

    async def send(self, method: str, url: str, headers: Headers, body: RequestBody) -> IResponse:
        """Make one request and return its response; its cookies are sent with the next request."""
        text = parse_target(encode_url(url)).url
        verb, uri = method.encode("ascii"), text.encode("ascii")
        cookies = self._cookies
        # A field that the caller set replaces all cookies.
        if cookies is not None and not headers.hasHeader(b"cookie"):
            value = cookies.header(text)
            if value is not None:
                headers = headers.copy()
                headers.setRawHeaders(b"cookie", [value.encode("latin-1", "replace")])
        response = await result_of(self._agent.request(verb, uri, headers, body.producer()))
        lines = self._call.set_cookies
        if lines is None:
            raw = response.headers.getRawHeaders(b"set-cookie")
            lines = [line.decode("latin-1") for line in raw] if raw else None
        if lines:
            if cookies is None:
                cookies = self._cookies = CallCookies(None, text, None)
            cookies.store(text, lines)
        return response
