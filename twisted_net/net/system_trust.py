"""System trust: TLS to servers by name, with the certificate authorities loaded once."""

from __future__ import annotations

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from twisted_net.twisted_internals import ClientTLSOptions, tls_options_changes


@implementer(IPolicyForHTTPS)
class SystemTrust:
    """
    Trusts the certificate authorities of the system, as they are when this is made.

    Twisted's own policy loads them for each host, when it connects. If no file can be opened then,
    OpenSSL goes on without them, and that host is not trusted for as long as its creator is cached.
    """

    def __init__(self) -> None:
        self._stock = BrowserLikePolicyForHTTPS()
        self._options = CertificateOptions(trustRoot=platformTrust())
        self._options.getContext()

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Return what makes connections to a host, whose certificate must be for this name."""
        creator: IOpenSSLClientConnectionCreator
        if tls_options_changes():
            creator = self._stock.creatorForNetloc(hostname, port)
        else:
            name = hostname.decode("ascii")
            creator = ClientTLSOptions(self._options.clientConnectionForTLS, name)
        return creator
