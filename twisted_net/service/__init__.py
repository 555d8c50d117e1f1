"""
The service that a configuration describes, for ``twistd`` or as part of another application.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.service.application import Application as Application
    from twisted_net.service.application_runner import ApplicationContext as ApplicationContext
    from twisted_net.service.config import CoapDtlsSettings as CoapDtlsSettings
    from twisted_net.service.config import CoapSettings as CoapSettings
    from twisted_net.service.config import Config as Config
    from twisted_net.service.config import TcpSettings as TcpSettings
    from twisted_net.service.config import UdpDtlsSettings as UdpDtlsSettings
    from twisted_net.service.config import UdpGroupSettings as UdpGroupSettings
    from twisted_net.service.config import UdpSettings as UdpSettings
    from twisted_net.service.config import load_config as load_config
    from twisted_net.service.login import Authenticator as Authenticator
    from twisted_net.service.login import IToken as IToken
    from twisted_net.service.login import configured_authenticator as configured_authenticator
    from twisted_net.service.net import NetService as NetService
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "application": ["Application"],
            "application_runner": ["ApplicationContext"],
            "config": [
                "CoapDtlsSettings",
                "CoapSettings",
                "Config",
                "TcpSettings",
                "UdpDtlsSettings",
                "UdpGroupSettings",
                "UdpSettings",
                "load_config",
            ],
            "login": ["Authenticator", "IToken", "configured_authenticator"],
            "net": ["NetService"],
        },
    )
