"""
Peers of a CoAP server: their sessions, and what they may use.

All modules of the package are internal.
"""
