"""Lines by which other protocols open a connection, and lines that only look like these."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.net.foreign_protocols import (
    BEGINNINGS,
    GREETINGS,
    METHODS,
    STORAGE,
    foreign_protocol,
)

HEAD = 64

COMMANDS = ("PING", "ECHO", "PUBLISH", "FETCH", "AUTH", "DELETE")

FOREIGN = {
    "HTTP": (
        b"POST / HTTP/1.1",
        b"GET /a?b HTTP/1.0\r",
        b"get / HTTP/1.1",
        b"DELETE /x HTTP/1.1",
        b"PROPFIND /x HTTP/1.1",
        b"PING / HTTP/1.1",
        b"echo /a%20b HTTP/1.1",
        b"A-Method!#$ / HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT example.org:443 HTTP/1.1",
        b"GET http://user:pass@example.org/ HTTP/1.1",
        b"GET /x\tHTTP/1.1 ",
        b"GET /with spaces in it HTTP/1.1",
        b"POST / HTTP/1.1\rPING",
        b"  GET / HTTP/1.1",
        b"GET /\xff HTTP/1.1",
        b"GET /" + b"x" * 16_000 + b" HTTP/1.1",
        b"ECHO /" + b"x" * 16_000 + b" y HTTP/1.1",
        b"GET /",
        b"get /index.html",
        b"TRACE http://example.org",
        b"Host: example.org",
        b"HOST:x",
        b"host : x",
        b"User-Agent: x",
        b"content-type:text/plain",
        b"Sec-Fetch-Site: cross-site",
        b"Accept-Language: de",
        b"Content-Disposition: form-data; name=x",
        b"HTTP/1.1 200 OK",
    ),
    "RTSP": (b"OPTIONS rtsp://a/b RTSP/1.0",),
    "SIP": (b"OPTIONS sip:nm SIP/2.0", b"INVITE sip:ann@a.test SIP/2.0"),
    "ICAP": (b"REQMOD icap://a/b ICAP/1.0",),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x16\x03\x03", b"\x16\x03\x01\n"),
    "SSH": (b"SSH-2.0-OpenSSH_9.9", b"SSH-1.99-x"),
    "SMTP": (b"EHLO me", b"helo me", b"LHLO x", b"EHLO", b"MAIL FROM:<a@b.test>", b"rcpt to:<a>"),
    "FTP": (b"USER anonymous", b"PASV"),
    "IRC": (b"NICK ann",),
    "PROXY": (b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6", b"PROXY UNKNOWN"),
    "XML": (b"<?xml version='1.0'?>", b"<policy-file-request/>\0", b"<stream:stream"),
    "JDWP": (b"JDWP-Handshake",),
    "RMI": (b"JRMI\x00\x02K",),
    "AMQP": (b"AMQP\x00\x00\x09\x01",),
    "DICT": (b"CLIENT libcurl 8.5.0",),  # what curl sends for dict:
    "SCGI": (b"70:CONTENT_LENGTH\x0027\x00SCGI\x001\x00",),
    "uwsgi": (b"\x00\x20\x20\x00\x0c\x00QUERY_STRING", b"\x05 A\x00"),
    "RESP": (b"*1", b"*3\r", b"*12"),  # Redis
    "git": (b"0032git-upload-pack /a.git\0host=b.test\0", b"00aegit-receive-pack /a"),
    "BitTorrent": (b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05",),
    "memcached": (b"set key 0 0 5", b"cas a:b 0 -1 12 7 noreply\r", b"ms key 5 T0", b"ms key 2"),
    "beanstalkd": (b"put 0 0 60 5",),
    "AJP": (b"\x124\x01\x20\x02\x04\x00\x08HTTP/1.1",),
    "binary": (
        b"\x05\x01\x00",  # SOCKS 5
        b"\x04\x01\x00\x50\x7f\x00\x00\x01",  # SOCKS 4
        b"\x00\x01\x00\x08\x21\x12\xa4\x42",  # STUN
        b"\x00\x03\x00\x08\x21\x12\xa4\x42",  # TURN
        b"\x03\x00\x00\x13\x0e\xe0",  # RDP
        b"\x00\x00\x00\x54\xffSMB",  # SMB
        b"\x00\x1e\x00\x06\x01\x00",  # DNS
        b"0\x0c\x02\x01\x01\x60\x07",  # LDAP
        b"l\x00\x0b\x00\x00\x00",  # X11
        b"\x10\x26\x00\x04MQTT\x04",  # MQTT
        b"\x80\x2e\x01\x03\x01",  # SSL 2
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # PostgreSQL
        b"\x12\x01\x00\x2f",  # SQL Server
        b"\x3a\x00\x00\x00\x00\x00\x00\x00",  # MongoDB
        b"\x00\x30\xab\xcd\x01\x00\x00\x01",  # DNS, with another length and ID
        b"0\x81\xc8\x02\x01\x01\x60\x81\xc2",  # LDAP, with a long name or password
        b".NET\x01\x00\x00\x00",  # .NET remoting
        b"\x00REQ\x00\x00\x00\x07",  # Gearman
        b"CNXN\x00\x00\x00\x01",  # ADB
        b"ZBXD\x01\x5c\x00\x00",  # Zabbix
    ),
}
"""First lines of clients of each protocol."""

OWN = (
    b"",
    b" ",
    b"PING",
    b"ECHO hello",
    b"ECHO /x y",
    b"ECHO /" + b"x" * 16_000,
    b"ECHO POST / HTTP/1.1",
    b"ECHO /x y HTTP/1.1 z",
    b'ECHO x "HTTP/1.1"',
    b"ECHO x/HTTP/1.1",
    b"ECHO HTTP/1.1",
    b"ECHO x HTTP/",
    b"ECHO x HTTPS/1",
    b"PUBLISH logs GET / HTTP/1.1",
    b'PUBLISH logs 192.0.2.1 "GET / HTTP/1.1" 200',
    b"FETCH http://example.org/",
    b"ECHO host: x",
    b"POST",
    b"GET key",
    b"DELETE /key",
    b"DELETE 5",
    b"HOSTS",
    b"HOST",
    b"hosting: x",
    b"hello: world",
    b"AUTH ann secret",
    b"AUTH TLS",
    b"USERS",
    b"EHLOX a",
    b"PROXY status",
    b'{"a":1}',
    b"<b>",
    b"SSH",
    b"\x00",
    b"\x16",
    b"\x1b[A",
    b"\x1b[A\x1b[A",
    b"\x124abc",
    b"12:30",
    b"70:CONTENT_LENGTH",
    b"CLIENT list",
    b"CLIENTS",
    b"ECHO \x16\x03\x01",
    b"\xff\xfe",
    b"\xc2\x85",
    b"\tPING",
    b"\t\tPING",
    b"ECHO \x00\xff\x01",
    b"\x00 \xff\xff\x01\x01",
    b"ECHO abc\x00\x00",
    b"*",
    b"* PING",
    b"$4",
    b"set key value",
    b"set key 5",
    b"put key 5",
    b"ms key",
    b"add 1 2",
    b"0032git",
)
"""Lines of ours, or mistakes that are to be answered."""


def protocol_of(line: bytes, whole: bool = True, too_long: bool = False) -> str | None:
    """Return what a line opens at a server with some commands."""
    return foreign_protocol(
        line, lambda name: name.upper() in COMMANDS, whole=whole, too_long=too_long
    )


class ForeignProtocolTests(SynchronousTestCase):
    """:func:`foreign_protocol`."""

    def test_foreign(self) -> None:
        """A client of another protocol is known by its first line."""
        for name, lines in FOREIGN.items():
            for line in lines:
                self.assertEqual(protocol_of(line), name, line[:60])

    def test_own(self) -> None:
        """Commands are ours, whatever their arguments, and so are words that are no command."""
        for line in OWN:
            self.assertIsNone(protocol_of(line), line[:60])

    def test_registered_names(self) -> None:
        """A name that another protocol uses is ours if a command has it, but no request is."""
        for word in [*METHODS, *GREETINGS]:
            for line in (word + b" /x", word.lower() + b" /x"):
                self.assertIsNone(foreign_protocol(line, lambda name: True))
                self.assertIsNotNone(foreign_protocol(line, lambda name: False))
            self.assertEqual(foreign_protocol(word + b" / HTTP/1.1", lambda name: True), "HTTP")
        for name in STORAGE:
            for line in FOREIGN[name]:
                self.assertIsNone(foreign_protocol(line, lambda name: True))

    def test_unfinished(self) -> None:
        """A line is known before its end has come, at the byte that decides."""
        for line, decisive in (
            (b"\x16\x03\x01\x02\x00", 2),
            (b"SSH-2.0-x", 5),
            (b"Host: x", 5),
            (b"POST /x HTTP/1.1", 6),
            (b"FOO /x HTTP/1.1", 13),
            (b"PING / HTTP/1.1", 13),
            (b"EHLO me", 5),
            (b"\x05\x01\x00", 2),
        ):
            for cut in range(len(line)):
                found = protocol_of(line[:cut], whole=False)
                self.assertEqual(found is not None, cut >= decisive, line[:cut])

    def test_unfinished_own(self) -> None:
        """No beginning of a line of ours is another protocol's."""
        for line in OWN:
            for cut in range(min(len(line), HEAD)):
                self.assertIsNone(protocol_of(line[:cut], whole=False), line[:cut])

    @given(
        st.lists(
            st.sampled_from(
                [
                    *(b"GET", b"PING", b"EHLO", b"/x", b"http://a", b"HTTP/1", b".1", b" ", b"\t"),
                    *(b"\0", b"\x16\x03", b"Host", b":", b"SSH-", b"2", b"x" * 70, b"*", b"git-"),
                ]
            ),
            max_size=8,
        ).map(b"".join)
    )
    def test_beginning_decides(self, line: bytes) -> None:
        """What is known by its beginning is known by the whole, and by each longer beginning."""
        known = False
        for cut in range(min(len(line), HEAD) + 1):
            found = protocol_of(line[:cut], whole=False) is not None
            self.assertTrue(found or not known, line[:cut])
            known = found
        if known:
            self.assertIsNotNone(protocol_of(line))

    def test_too_long(self) -> None:
        """What is over the limit is a request if it begins as one, whatever its method."""
        for line in (
            b"POST /?" + b"a" * HEAD,
            b"PING /" + b"a" * HEAD,
            b"FOO http://a/" + b"a" * HEAD,
            b"INVITE sip:ann@" + b"a" * HEAD,
            b"PUBLISH SIPS:ann@" + b"a" * HEAD,
            b"MESSAGE tel:+4930" + b"1" * HEAD,
            b"CONNECT " + b"a" * HEAD,
            b"POST  a" + b"a" * HEAD,
            b"User-Agent: " + b"a" * HEAD,
            b"EHLO " + b"a" * HEAD,
        ):
            self.assertIsNotNone(protocol_of(line[:HEAD], whole=False, too_long=True), line)
        for line in (
            b"x" * HEAD,
            b"/" * HEAD,
            b"POST" * HEAD,
            b"ECHO " + b"a" * HEAD,
            b"DELETE " + b"a" * HEAD,
            b'ECHO "/' + b"a" * HEAD,
            b"PUBLISH sip " + b"a" * HEAD,
            b"PUBLISH hotel:a" + b"a" * HEAD,
            b"PUBLISH a /" + b"a" * HEAD,
        ):
            self.assertIsNone(protocol_of(line[:HEAD], whole=False, too_long=True), line)

    def test_tables(self) -> None:
        """Each row of the tables has a line above, and the tables are all in capitals."""
        for name in [*BEGINNINGS, *STORAGE]:
            self.assertIn(name, FOREIGN)
        for word, name in GREETINGS.items():
            self.assertEqual(word, word.upper())
            self.assertIn(name, FOREIGN)

    @given(st.binary(max_size=100))
    def test_anything(self, line: bytes) -> None:
        """No line makes it fail, whatever is said of it."""
        for whole, too_long in ((True, False), (False, False), (False, True)):
            found = protocol_of(line, whole, too_long)
            self.assertIn(type(found), (str, type(None)))
