"""HTTP/1.1 (RFC 9112): the connections of the client. All modules are internal."""
