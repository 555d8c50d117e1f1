"""
Users and permissions, password and token hashing.

The names below are public; all other modules and names are internal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_net.auth.passwords import hash_password as hash_password
    from twisted_net.auth.passwords import verify as verify
    from twisted_net.auth.users import AuthSettings as AuthSettings
    from twisted_net.auth.users import Permissions as Permissions
    from twisted_net.auth.users import User as User
    from twisted_net.auth.users import Users as Users
    from twisted_net.auth.users import hash_token as hash_token
    from twisted_net.auth.users import read_users as read_users
else:
    from twisted_net import lazy_exports

    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "passwords": ["hash_password", "verify"],
            "users": ["AuthSettings", "Permissions", "User", "Users", "hash_token", "read_users"],
        },
    )
