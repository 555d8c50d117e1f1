"""Files that options name are read within bounds, and what is wrong with one is a sentence."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority
from twisted_net.cli.named_files import MAX_FILE_SIZE, read_authorities, read_named_file


class NamedFilesTests(SynchronousTestCase):
    """:func:`read_named_file` and :func:`read_authorities`."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(TemporaryDirectory()))

    def file(self, content: bytes) -> str:
        """Write a file."""
        path = self.folder / "file"
        path.write_bytes(content)
        return str(path)

    def test_text(self) -> None:
        """UTF-8 up to the limit is read."""
        self.assertEqual(read_named_file(self.file("é\n".encode())), "é\n")
        whole = b"x" * MAX_FILE_SIZE
        self.assertEqual(read_named_file(self.file(whole)), whole.decode())

    def test_unreadable(self) -> None:
        """What cannot be read says why, with its path."""
        missing = str(self.folder / "missing")
        for content, said in (
            (None, "No such file or directory"),
            (b"\xff", "utf-8"),
            (b"x" * (MAX_FILE_SIZE + 1), ""),
        ):
            path = missing if content is None else self.file(content)
            error = self.assertRaises(UsageError, read_named_file, path)
            self.assertTrue(str(error).startswith(f"{path}: "), error)
            self.assertIn(said, str(error))

    def test_authorities(self) -> None:
        """All certificates of a file are authorities, also what is between them."""
        files = [Authority(name).write(self.folder / name) for name in ("One", "Two")]
        pems = [file.read_bytes() for file in files]
        found = read_authorities(self.file(b"# ours\n" + b"# theirs\n".join(pems)))
        self.assertEqual([one.subject.rfc4514_string() for one in found], ["CN=One", "CN=Two"])

    def test_no_authorities(self) -> None:
        """A file without a certificate, or with a damaged one, says so."""
        pem = Authority().write(self.folder / "ca").read_bytes()
        damaged = pem.replace(b"M", b"N", 5)
        for content in (b"", b"x", pem + damaged):
            path = self.file(content)
            error = self.assertRaises(UsageError, read_authorities, path)
            self.assertEqual(str(error), f"{path}: there is no certificate in it, in PEM")
