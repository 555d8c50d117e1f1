"""The subcommands of ``twisted-net``, each with the function that runs it."""

from __future__ import annotations

SUBCOMMANDS = {
    "run": "serve:run",
    "check-config": "serve:check_config",
    "print-config": "serve:print_config",
    "hash-password": "hashing:print_password_hash",
    "hash-token": "hashing:print_token_hash",
    "call": "call:call",
    "console": "console:console",
    "coap": "coap:coap",
    "fetch": "fetch:fetch",
    "discover": "discover:discover",
}
"""For each subcommand, its module in ``twisted_net.cli`` and the function to run."""
