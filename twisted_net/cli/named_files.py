"""Files that options name: read within bounds, with a sentence for what is wrong with one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.python.usage import UsageError

from twisted_net.net.files import read_file

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_FILE_SIZE = 1 << 20
"""Bytes of a file that an option names: certificates, or the credentials."""

TYPING_PATIENCE = 60.0
"""Seconds for such a file if it is a pipe or a terminal, as a person may have to type into it."""

TLS_OPTIONS = ("ca", "cert", "key", "insecure")
"""Options of the commands that connect with TLS or DTLS, and verify servers by default."""


def check_tls_options(options: Mapping[str, Any]) -> None:  # Any: text, None or a number
    """
    Check which of :data:`TLS_OPTIONS` are given together.

    :raises UsageError: for one that has no effect, and for a file without a name.
    """
    for name in TLS_OPTIONS:
        # As of a variable of the shell that is not set: not to be taken for the default.
        if options[name] == "":
            raise UsageError(f"--{name} must name a file")
    if options["key"] and not options["cert"]:
        raise UsageError("--key needs --cert, the certificate that it belongs to")
    if options["ca"] and options["insecure"]:
        raise UsageError("--ca is not for --insecure, which verifies no certificate")


def read_named_file(path: str) -> str:
    """
    Return the text of a file.

    :raises UsageError: if it cannot be read, is no UTF-8, or is longer than :data:`MAX_FILE_SIZE`.
    """
    try:
        return read_file(path, MAX_FILE_SIZE, TYPING_PATIENCE).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def read_authorities(path: str) -> list[Certificate]:
    """
    Return the certificate authorities of a PEM file, all that it has.

    :raises UsageError: as :func:`read_named_file`, and if there is no certificate, or one is
        malformed.
    """
    # Only where it is needed: it takes as long to load as the rest of the command.
    from cryptography.x509 import load_pem_x509_certificates

    pem = read_named_file(path).encode()
    try:
        return load_pem_x509_certificates(pem)
    except ValueError:
        raise UsageError(f"{path}: there is no certificate in it, in PEM") from None
