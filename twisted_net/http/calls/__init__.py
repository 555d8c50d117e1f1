"""
Calls of the HTTP client: what its methods take and what their responses are read as.

The names that users need are in :mod:`twisted_net.http`; all modules of the package are internal.
"""
