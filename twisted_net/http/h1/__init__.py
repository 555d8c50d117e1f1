"""HTTP/1.1 of our own (RFC 9112): messages from bytes and into bytes. All modules are internal."""
