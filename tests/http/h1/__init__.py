"""HTTP/1.1 messages, into bytes and from bytes."""
