"""Resource access: which resources a CoAP peer may use, and which are listed for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted_net.coap.resources import (
    EVENTS,
    RequestRefused,
    command_arguments,
    find_command,
    link_format,
)
from twisted_net.coap.responses import ServerRequest
from twisted_net.commands.registry import Command, Commands
from twisted_net.commands.runner import CommandRunner
from twisted_net.commands.topics import declare_topics
from twisted_net.dtls.peer import identity_of
from twisted_net.errors import AuthRequired, CommandError
from twisted_net.sessions.session import Session


class ResourceAccess:
    """
    Finds and lists the resources of a server, as far as a peer may use them.

    Where users are configured, a command that the peer may not run and one that does not exist are
    refused alike, before anything else of the request is looked at.

    :param has_users: whether users are configured.
    :param topics: whether topics are served though there are no commands for them.
    """

    def __init__(
        self, commands: Commands, runner: CommandRunner, has_users: bool, topics: bool
    ) -> None:
        self._commands = commands
        # Of no door: what they need is the permissions, and the handler.
        self._topic_commands = Commands()
        if topics:
            declare_topics(self._topic_commands)
        self._runner = runner
        self._has_users = has_users

    def check_user(self, request: ServerRequest) -> None:
        """
        Check that the peer is a user, if it has a certificate: nobody's permits nothing.

        :raises AuthRequired: if it is not.
        """
        if not self._has_users or identity_of(request.source) is None:
            return
        if request.session.user is None:
            if request.incoming is not None:
                path = request.options.path
                self._runner.admit_unknown(path[0] if path else "", request.session)
            raise AuthRequired

    def command(self, request: ServerRequest, path: Sequence[str], payload: bytes) -> Command:
        """
        Return the command that a path names.

        :raises RequestRefused: if there is none, and nothing is forbidden to the peer.
        :raises NotPermitted, AuthRequired: if the peer may not run it, or if there is none.
        """
        if not self._has_users:
            return find_command(self._commands, path)
        is_user = identity_of(request.source) is not None
        try:
            command = find_command(self._commands, path, admin=is_user)
        except RequestRefused:
            if len(path) == 1:
                self._runner.admit_unknown(path[0], request.session)
            raise
        self._check(request, command, payload)
        return command

    def topic_command(self, request: ServerRequest, name: str, payload: bytes) -> Command:
        """
        Return the command whose permission a topic takes, be it no resource itself.

        :param name: of SUBSCRIBE, to read the topic, or of PUBLISH.
        :raises RequestRefused, NotPermitted, AuthRequired: as :meth:`command` does.
        """
        command = self._commands.get(name) or self._topic_commands.get(name)
        if command is None:
            if self._has_users:
                self._runner.admit_unknown(name, request.session)
            # No command has two segments: this raises, with the path that was asked for.
            return find_command(self._commands, request.options.path)
        if self._has_users:
            self._check(request, command, payload)
        return command

    def _check(self, request: ServerRequest, command: Command, payload: bytes) -> None:
        """Refuse a command that the peer may not run, before the request is looked at."""
        if not request.session.may_run(command.name, command.admin):
            self.admit(request, command, self._shown_arguments(request, payload))

    def _shown_arguments(self, request: ServerRequest, payload: bytes) -> list[str]:
        """Return the arguments of a command that is refused, if somebody watches and sees them."""
        if not self._runner.watched:
            return []
        try:
            return command_arguments(request.options, payload)
        except (RequestRefused, CommandError):
            return []

    def admit(self, request: ServerRequest, command: Command, arguments: Sequence[str]) -> None:
        """
        Admit a command. A notification is no command that came, and is checked alone.

        :raises CommandError: if the peer may not run it.
        """
        if request.incoming is None:
            self._runner.check(command, arguments, request.session)
        else:
            self._runner.admit(command, arguments, request.session)

    def check_topic(self, request: ServerRequest, command: Command, topic: str) -> None:
        """
        Check that a peer may read a topic, or publish to it.

        :param command: SUBSCRIBE or PUBLISH.
        :raises NotPermitted, AuthRequired: if it may not.
        """
        session = request.session
        check = session.check_subscribe if command.name == "SUBSCRIBE" else session.check_publish
        with self._runner.refusals_counted(command.name, session):
            check(topic)

    def check_events(self, session: Session) -> None:
        """
        Check that a peer may receive what BROADCAST sends: that it may subscribe to its topic.

        :raises NotPermitted, AuthRequired: if it may not.
        """
        if session.permissions is not None:
            with self._runner.refusals_counted(EVENTS, session):
                session.permissions.check_broadcasts()

    def links(
        self, request: ServerRequest, observable: Iterable[str], topics: Iterable[str]
    ) -> bytes:
        """
        Return the list of resources, see :func:`~twisted_net.coap.resources.link_format`.

        :param topics: those of which the last message may be kept.
        :raises RequestRefused: for queries that are no filters, or too many.
        """
        session = request.session if self._has_users else None
        return link_format(
            self._commands,
            observable,
            request.options.queries,
            session,
            self._readable(request.session, topics),
        )

    def _readable(self, session: Session, topics: Iterable[str]) -> list[str]:
        """Return the topics that a peer may read."""
        command = self._commands.get("SUBSCRIBE") or self._topic_commands.get("SUBSCRIBE")
        if command is None or not session.may_run(command.name, command.admin):
            return []
        return [topic for topic in topics if session.allows_subscribe(topic)]
