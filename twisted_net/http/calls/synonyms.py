"""Names that other clients have for what this one has, for the messages of mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_STREAM = 'client.stream("GET", url)'
_BASIC = "auth=(user, password)"
_POLICY = "Client(tls_policy=…)"
_HOOKS = "Client(on_request=…, on_response=…)"

OPTION_SYNONYMS = {
    **dict.fromkeys(("content", "body", "payload", "form"), "data"),
    **dict.fromkeys(("query", "query_params", "querystring", "args"), "params"),
    **dict.fromkeys(("follow_redirects", "redirects", "browser_like_redirects"), "allow_redirects"),
    **dict.fromkeys(("proxies", "proxy_url"), "proxy"),
    **dict.fromkeys(("authorization", "credentials"), "auth"),
    **dict.fromkeys(("user", "username", "password"), _BASIC),
    **dict.fromkeys(("bearer", "token", "bearer_token"), "auth=BearerToken(…)"),
    **dict.fromkeys(("digest", "digest_auth"), "auth=DigestAuth(user, password)"),
    **dict.fromkeys(("ttl", "expire_after", "max_age"), "default_ttl"),
    **dict.fromkeys(("max_retries", "retry", "attempts"), "retries"),
    **dict.fromkeys(("callback", "on_progress"), "progress"),
    "multipart": "files",
    "deadline": "timeout",
    "max_time": "timeout",
    "connect_timeout": "timeout=Timeouts(connect=…)",
    "headers_timeout": "timeout=Timeouts(headers=…)",
    **dict.fromkeys(("read_timeout", "silence_timeout"), "timeout=Timeouts(silence=…)"),
    **dict.fromkeys(("stream", "unbuffered"), _STREAM),
    **dict.fromkeys(("hooks", "event_hooks", "on_request", "on_response"), _HOOKS),
    **dict.fromkeys(("verify", "cert", "ssl", "verify_ssl", "tls_policy"), _POLICY),
    **dict.fromkeys(("transport", "agent", "pool"), "Client(agent=…)"),
    **dict.fromkeys(("cookiejar", "jar"), "Client(cookiejar=…)"),
    **{name: f"Client({name}=…)" for name in ("base_url", "egress", "report", "resolver", "store")},
    "trust_env": 'HttpSettings(proxy="environment")',
    "max_redirects": "HttpSettings(max_redirects=…)",
    "user_agent": 'headers={"User-Agent": …}',
    "accept": 'headers={"Accept": …}',
    "content_type": 'headers={"Content-Type": …}',
    "range": 'headers={"Range": …}',
    "raise_for_status": "response.raise_for_status()",
    "type": "client.get_json(url, type=…)",
    "reactor": "Client(reactor)",
}
"""What requests, httpx, aiohttp, treq and others call options of a call, or what does the same."""

TIMEOUT_SYNONYMS = {
    **dict.fromkeys(("read", "sock_read", "write"), "silence"),
    "sock_connect": "connect",
    "timeout": "total",
    "pool": "HttpSettings(queue_timeout=…)",
}
"""What httpx and aiohttp call the phases of a call."""

CLIENT_ATTRIBUTE_SYNONYMS = {
    **{name: f"Client(reactor, {name}=…)" for name in ("headers", "auth", "params", "base_url")},
    **dict.fromkeys(("cookies", "cookie_jar", "cookiejar"), "Client(reactor, cookiejar=…)"),
    **dict.fromkeys(("hooks", "event_hooks"), _HOOKS),
    **dict.fromkeys(("verify", "cert"), _POLICY),
    **{
        name: f"Client(reactor, HttpSettings({name}=…))"
        for name in ("timeout", "max_redirects", "proxy")
    },
    "proxies": "Client(reactor, HttpSettings(proxy=…))",
    "trust_env": 'Client(reactor, HttpSettings(proxy="environment"))',
    "mount": "Client(reactor, agent=…)",
    "aclose": "close()",
    **dict.fromkeys(("fetch", "send", "build_request"), "request()"),
}
"""What requests and httpx have on a session, and what is an argument here, or named otherwise."""

_ANY_BODY = {
    **dict.fromkeys(("status_code", "code"), "status"),
    **dict.fromkeys(("reason_phrase", "phrase"), "reason"),
    **dict.fromkeys(("is_success", "is_error"), "ok"),
    **dict.fromkeys(("charset", "charset_encoding", "apparent_encoding"), "encoding"),
    "real_url": "url",
    "request_info": "request",
    "is_redirect": "history",
    "next": "links",
    "content_type": 'headers["content-type"]',
    "length": 'headers["content-length"]',
}

RESPONSE_SYNONYMS = {
    **_ANY_BODY,
    **dict.fromkeys(("content", "raw", "read", "aread", "collect", "data"), "body"),
    **dict.fromkeys(("iter_lines", "aiter_lines", "events", "aiter_sse"), _STREAM),
    **dict.fromkeys(("iter_content", "iter_bytes", "aiter_bytes", "aiter_raw"), _STREAM),
}
"""What others call what a response with its body has."""

STREAM_SYNONYMS = {
    **_ANY_BODY,
    **dict.fromkeys(("aread", "body", "content", "text", "json", "collect"), "await read()"),
    **dict.fromkeys(
        ("iter_content", "iter_bytes", "aiter_bytes", "aiter_raw", "iter_raw", "raw"),
        "async for piece in response",
    ),
    "aiter_lines": "iter_lines()",
    **dict.fromkeys(("aiter_sse", "iter_sse"), "events()"),
    "aclose": "close()",
}
"""What others call what a streamed response has."""

FIELDS_SYNONYMS = {
    **dict.fromkeys(("getRawHeaders", "get_list", "getlist", "getall"), "get_all()"),
    **dict.fromkeys(("getAllRawHeaders", "multi_items", "raw"), "pairs"),
    "hasHeader": "name in headers",
}
"""What others call what header fields have."""


def client_synonyms(settings: Iterable[str], options: Iterable[str]) -> dict[str, str]:
    """
    Return what to write for arguments that other clients take and this one does not.

    :param settings: names of the fields of ``HttpSettings``.
    :param options: names of the options of a call, which are no arguments of a client.
    """
    return {
        **{name: f"client.get(url, {name}=…)" for name in options},
        **{name: f"Client(reactor, HttpSettings({name}=…))" for name in settings},
        **dict.fromkeys(("proxies", "proxy_url"), "Client(reactor, HttpSettings(proxy=…))"),
        **dict.fromkeys(
            ("retries", "max_retries"),
            "Client(reactor, HttpSettings(retry=RetryPolicy(retries=…)))",
        ),
        "hedge_after": "Client(reactor, HttpSettings(retry=RetryPolicy(hedge_after=…)))",
        **dict.fromkeys(
            ("default_ttl", "expire_after"),
            "Client(reactor, HttpSettings(cache=CacheSettings(default_ttl=…)))",
        ),
        **dict.fromkeys(
            ("cache_file", "cache_name"),
            "Client(reactor, HttpSettings(cache=CacheSettings(file=…)))",
        ),
        "limits": "Client(reactor, HttpSettings(max_per_origin=…))",
        "trust_env": 'Client(reactor, HttpSettings(proxy="environment"))',
        **dict.fromkeys(("follow_redirects", "redirects"), "client.get(url, allow_redirects=…)"),
        **dict.fromkeys(("verify", "cert", "ssl", "verify_ssl"), "tls_policy"),
        **dict.fromkeys(("hooks", "event_hooks"), "on_request, on_response"),
        **dict.fromkeys(("transport", "pool", "connector"), "agent"),
        **dict.fromkeys(("cookie_jar", "jar"), "cookiejar"),
        **dict.fromkeys(("loop", "clock"), "reactor"),
    }


def unknown_attribute(thing: object, name: str, synonyms: Mapping[str, str]) -> AttributeError:
    """Return the error for an attribute that there is not, with what is meant if it is known."""
    kind, meant = type(thing).__name__, synonyms.get(name)
    if meant is None:
        # With these Python adds the nearest name.
        return AttributeError(f"{kind} has no attribute {name}", name=name, obj=thing)
    return AttributeError(f"{kind} has no attribute {name}; did you mean {meant}?")
