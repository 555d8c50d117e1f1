"""Session hooks: functions of an application, called as clients come, log in, subscribe and go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from twisted_net.config.callbacks import check_callback
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import BadTopic, CommandError, FetchError, Internal
from twisted_net.reasons import End
from twisted_net.sessions.session import Session

_Hook = TypeVar("_Hook", bound=Callable[..., object])

Later = Coroutine[Any, Any, None]  # Any: what it awaits is the hooks' own
"""Hooks that are still to be awaited."""


class HookCalls(Protocol):
    """What a server does for hooks, as only it can wait, and log."""

    def failed(self, name: str, session: Session) -> None:
        """
        Log the exception that is being handled, which a hook has raised.

        :raises BaseException: that exception, if it is no failure: the hook was cancelled.
        """
        ...

    def start(self, later: Later, session: Session) -> None:
        """Await hooks that nobody waits for, such as those of a client that has gone."""
        ...

    def settled(self) -> Awaitable[None]:
        """Return what ends when no hook of a client that has gone is awaited any more."""
        ...

    def check_room(self) -> None:
        """
        Check that one more client may come.

        :raises TooBusy: if hooks of too many clients that have gone are still awaited.
        """
        ...


@check_arguments
class SessionHooks:
    """
    Hooks, by what they are called for. Each kind is called in the order of registration.

    A hook is a plain or an ``async`` function; the client is kept waiting until it has returned.
    To refuse, :meth:`on_open` and :meth:`on_subscribe` raise a
    :class:`~twisted_net.errors.CommandError`, which the client gets as its answer. A bug in one of
    these is logged, and refuses the client too (``internal``): what may decide who is admitted must
    not admit by failing. One in the others is logged, and changes nothing.

    The methods are decorators::

        @hooks.on_open
        def greet(session: Session) -> None:
            session.send({"event": "hello"})

    :raises TypeError: of the decorators, for a function that cannot be called so.
    """

    def __init__(self) -> None:
        self._open: list[Callable[[Session], object]] = []
        self._login: list[Callable[[Session], object]] = []
        self._subscribe: list[Callable[[Session, str], object]] = []
        self._close: list[Callable[[Session, End], object]] = []
        self._calls: HookCalls | None = None

    def on_open(self, hook: _Hook) -> _Hook:
        """
        Call ``hook(session)`` before the first command of a client that has come.

        It may refuse the client: the error is its answer, and the connection is closed. It has not
        logged in yet, unless by a certificate. No event of others reaches it before.
        """
        check_callback("a hook of on_open", hook, "session")
        self._open.append(hook)
        return hook

    def on_login(self, hook: _Hook) -> _Hook:
        """Call ``hook(session)`` when a client has logged in, before its next command."""
        check_callback("a hook of on_login", hook, "session")
        self._login.append(hook)
        return hook

    def on_subscribe(self, hook: _Hook) -> _Hook:
        """
        Call ``hook(session, pattern)`` before a client subscribes to a topic or pattern.

        It may refuse, or return another pattern in place of this one; with None, it stays. The
        user must be permitted to subscribe to the one that comes of it. A resource of CoAP is the
        topic that it is named for: another one is refused there.
        """
        check_callback("a hook of on_subscribe", hook, "session", "pattern")
        self._subscribe.append(hook)
        return hook

    def on_close(self, hook: _Hook) -> _Hook:
        """
        Call ``hook(session, end)`` when a client has gone, with the reason.

        It is called once for each session that was shown to :meth:`on_open`, those that it refused
        included. The session is out of all lists by then, and can be sent nothing.
        """
        check_callback("a hook of on_close", hook, "session", "end")
        self._close.append(hook)
        return hook

    def __bool__(self) -> bool:
        """Whether there is any hook: without one, no client costs a call."""
        return bool(self._open or self._login or self._subscribe or self._close)

    def update(self, other: SessionHooks) -> None:
        """Add all hooks of another, behind those that there are."""
        self._open += other._open
        self._login += other._login
        self._subscribe += other._subscribe
        self._close += other._close

    # --- the doors call ---

    def use_calls(self, calls: HookCalls) -> None:
        """Log and wait by this, unless another server was first."""
        if self._calls is None:
            self._calls = calls

    async def settle(self) -> None:
        """Wait for the hooks of clients that have gone, for as long as these may take."""
        if self._calls is not None:
            await self._calls.settled()

    def opened(self, session: Session) -> Later | None:
        """
        Call the hooks for a client that has come.

        :return: what is to be awaited before its first command; None for nothing.
        :raises CommandError, FetchError: if it is refused, here or when that is awaited.
        """
        if self._calls is not None:
            self._calls.check_room()
        session.shown = True
        for i, hook in enumerate(self._open):
            value = self._ask("on_open", hook, session)
            if isinstance(value, Awaitable):
                return self._open_later(value, self._open[i + 1 :], session)
        return None if session.user is None else self.logged_in(session)

    async def _open_later(
        self, value: Awaitable[object], following: Sequence[Callable[..., object]], session: Session
    ) -> None:
        await self._asked("on_open", value, session)
        for hook in following:
            next_value = self._ask("on_open", hook, session)
            if isinstance(next_value, Awaitable):
                await self._asked("on_open", next_value, session)
        if session.user is not None and (later := self.logged_in(session)) is not None:
            await later

    def logged_in(self, session: Session) -> Later | None:
        """
        Call the hooks for a client that has logged in.

        :return: what is to be awaited before its next command; None for nothing. It raises nothing.
        """
        return self._call("on_login", self._login, session, session)

    def closed(self, session: Session, end: End) -> None:
        """Call the hooks for a client that has gone; it raises nothing."""
        self._start(self._call("on_close", self._close, session, session, end), session)

    def logged_in_meanwhile(self, session: Session) -> None:
        """Call the hooks for a client that was logged in by no command; it raises nothing."""
        self._start(self.logged_in(session), session)

    def _start(self, later: Later | None, session: Session) -> None:
        if later is not None:
            if self._calls is None:
                later.close()  # without a server there is nothing that could wait
            else:
                self._calls.start(later, session)

    def subscribing(
        self, session: Session, pattern: str
    ) -> str | Coroutine[Any, Any, str]:  # Any: as above
        """
        Call the hooks for a client that is to subscribe.

        :return: the pattern that it is to subscribe to, or an awaitable of that.
        :raises CommandError, FetchError: if it is refused, here or when that is awaited.
        """
        for i, hook in enumerate(self._subscribe):
            value = self._ask("on_subscribe", hook, session, pattern)
            if isinstance(value, Awaitable):
                return self._subscribe_later(value, self._subscribe[i + 1 :], session, pattern)
            pattern = _checked(value, pattern)
        return pattern

    async def _subscribe_later(
        self,
        value: Awaitable[object],
        following: Sequence[Callable[..., object]],
        session: Session,
        pattern: str,
    ) -> str:
        pattern = _checked(await self._asked("on_subscribe", value, session), pattern)
        for hook in following:
            next_value = self._ask("on_subscribe", hook, session, pattern)
            if isinstance(next_value, Awaitable):
                next_value = await self._asked("on_subscribe", next_value, session)
            pattern = _checked(next_value, pattern)
        return pattern

    # --- hooks that decide ---

    def _ask(
        self, name: str, hook: Callable[..., object], session: Session, *what: object
    ) -> object:
        """
        Call a hook that may refuse.

        :raises CommandError, FetchError: if it does, or has a bug.
        """
        try:
            return hook(session, *what)
        except (CommandError, FetchError):
            raise
        except BaseException:
            self._failed(name, session)
            raise Internal from None

    async def _asked(self, name: str, value: Awaitable[object], session: Session) -> object:
        """Await what such a hook has returned; raises as :meth:`_ask` does."""
        try:
            return await value
        except (CommandError, FetchError):
            raise
        except BaseException:
            self._failed(name, session)
            raise Internal from None

    # --- hooks that decide nothing ---

    def _call(
        self, name: str, hooks: Sequence[Callable[..., object]], session: Session, *what: object
    ) -> Later | None:
        """Call hooks up to the first that is to be awaited; return what awaits it, and the rest."""
        for i, hook in enumerate(hooks):
            try:
                value = hook(*what)
            except BaseException:
                self._failed(name, session)
                continue
            if isinstance(value, Awaitable):
                return self._call_later(name, value, hooks[i + 1 :], session, *what)
        return None

    async def _call_later(
        self,
        name: str,
        value: Awaitable[object],
        following: Sequence[Callable[..., object]],
        session: Session,
        *what: object,
    ) -> None:
        try:
            await value
        except BaseException:
            self._failed(name, session)
        later = self._call(name, following, session, *what)
        if later is not None:
            await later

    def _failed(self, name: str, session: Session) -> None:
        """Log what a hook has raised, or raise it again where there is no server to do so."""
        if self._calls is None:
            raise  # called where an exception is handled
        self._calls.failed(name, session)


def _checked(value: object, pattern: str) -> str:
    """
    Return the pattern that a hook has made of another.

    :raises BadTopic: if it returned neither a text nor None.
    """
    if value is None:
        return pattern
    if not isinstance(value, str):
        raise BadTopic(f"on_subscribe returned a {type(value).__name__} in place of a pattern")
    return value
