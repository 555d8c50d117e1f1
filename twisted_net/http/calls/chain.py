"""The requests of one call: redirects that are followed, and challenges that are answered."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from twisted_net.http.bodies import BodyResponse, discard, header_fields, twisted_headers
from twisted_net.http.call import Call
from twisted_net.http.calls.authentication import Auth, DigestAuth
from twisted_net.http.calls.body import NO_BODY, RequestBody
from twisted_net.http.calls.hooks import RequestHook, completed
from twisted_net.http.calls.http_request import HttpRequest, RequestFields
from twisted_net.http.calls.request_sender import RequestSender
from twisted_net.http.errors import TooManyRedirects
from twisted_net.http.fields import HeaderFields
from twisted_net.http.redirects import ORIGIN_FIELDS, Redirect, parse_redirect
from twisted_net.http.response import Response, Trace
from twisted_net.http.urls import encode_url, parse_target

_OF_BODY = ("content-type", "content-language", "content-location", "content-encoding")


@define(eq=False)
class RequestChain:
    """
    The requests of one call, each after the response to the one before.

    :param auth: a function or :class:`DigestAuth` that requests to the first origin are passed to.
    :param hooks: are called with each request.
    :param max_redirects: None to follow none.
    :ivar method: of the last request.
    :ivar sent: its header.
    :ivar body: its body.
    :ivar history: the responses that redirected, without their bodies; at most *max_redirects*.
    """

    method: str
    url: str
    sent: HeaderFields
    body: RequestBody
    call: Call
    clock: IReactorTime
    auth: Auth | None = None
    hooks: tuple[RequestHook, ...] = ()
    max_redirects: int | None = None
    history: list[Response] = field(factory=list)
    _fields: HeaderFields = field(init=False)
    _challenged: bool = field(init=False, default=False)
    _elsewhere: bool = field(init=False, default=False)

    async def run(self, sender: RequestSender) -> BodyResponse:
        """
        Make the requests; return the last response.

        :raises TooManyRedirects: if there are more than the limit.
        """
        self._fields = self.sent
        prepared = self.auth is not None or bool(self.hooks)
        started = self.clock.seconds()
        while True:
            if prepared:
                self.sent = await self._prepared()
            received = await sender.send(self.method, self.url, self.sent, self.body)
            code = received.code
            if code == 401 and self._may_answer(received):
                discard(received)
                continue
            if not 300 <= code < 400 or self.max_redirects is None:
                return received
            fields = received.fields
            redirect = parse_redirect(self.method, self.call.url, code, fields.first("location"))
            if redirect is None or (redirect.with_body and not self._may_send_body):
                return received
            discard(received)
            if len(self.history) == self.max_redirects:
                error = TooManyRedirects(self.max_redirects)
                error.name_url(self.call.url)
                raise error
            self.history.append(
                Response(
                    method=self.method,
                    url=self.call.url,
                    status=code,
                    reason=received.phrase.decode("latin-1"),
                    headers=fields,
                    body=b"",
                    attempts=self.call.attempts,
                    elapsed=self.clock.seconds() - started,
                    age=self.call.age,
                    trace=self.trace(),
                )
            )
            self._follow(redirect)

    def trace(self) -> Trace:
        """Return what a response is to know of the requests."""
        return Trace(self.sent, self.body.data, tuple(self.history), self.call.set_cookies)

    async def _prepared(self) -> HeaderFields:
        """Return the header of the next request, after all hooks."""
        headers = twisted_headers(self._fields)
        url = parse_target(encode_url(self.url)).url
        request = HttpRequest(self.method, url, RequestFields(headers), self.body.data)
        for hook in self.hooks:
            await completed(hook(request), self.clock, self.call.deadline, url)
        if self._elsewhere:
            # A hook may add them to every request.
            for name in ORIGIN_FIELDS:
                headers.removeHeader(name)
        if isinstance(self.auth, DigestAuth):
            self.auth.authorize(request)
        elif callable(self.auth):
            # Last, as a signature covers what it finds.
            await completed(self.auth(request), self.clock, self.call.deadline, url)
        return header_fields(headers)

    def _may_answer(self, received: BodyResponse) -> bool:
        """Return whether the request is to be sent again, with the answer to a challenge."""
        if (
            self._challenged
            or not isinstance(self.auth, DigestAuth)
            or not self._may_send_body
            or not self.auth.challenged(
                encode_url(self.url), received.fields.get_all("www-authenticate")
            )
        ):
            return False
        self._challenged = True
        return True

    @property
    def _may_send_body(self) -> bool:
        """Whether the body of the last request can be sent with the next one."""
        return self.body.replayable or self.call.body_unsent

    def _follow(self, redirect: Redirect) -> None:
        """Become the request that follows a redirect."""
        fields = self._fields
        if not redirect.same_origin:
            self.auth, self._elsewhere = None, True
            fields = fields.without(ORIGIN_FIELDS)
        if not redirect.with_body:
            fields = fields.without(_OF_BODY)
            self.body = NO_BODY
        self._fields = self.sent = fields
        self.method, self.url = redirect.method, redirect.url
        self._challenged = False
