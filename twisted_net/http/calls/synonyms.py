"""Names that other clients have for what this one has, for the messages of mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, TypeVar

_T = TypeVar("_T")

_STREAM = 'client.stream("GET", url)'
_BASIC = "auth=(user, password)"
_TLS_FIELDS = {
    **dict.fromkeys(("verify", "verify_ssl", "ssl"), "verify"),
    **dict.fromkeys(("cert", "client_cert", "certificate"), "certificate"),
    **dict.fromkeys(("cafile", "ca"), "ca"),
    "key": "key",
}
_HOOKS = "Client(on_request=…, on_response=…)"


def _tls_synonyms(kind: str) -> dict[str, str]:
    """Return what to write for settings of TLS that are passed to a call, a client or an agent."""
    written = f"{kind}(reactor, HttpSettings(tls=ClientTlsSettings({{}}=…)))"
    # verify of requests and httpx may be a file, too.
    files = {"verify": ", or ca=… for a file of authorities"}
    contexts = dict.fromkeys(("ssl_context", "sslcontext", "contextFactory"), "tls_policy=…")
    return {
        **{name: written.format(one) + files.get(name, "") for name, one in _TLS_FIELDS.items()},
        **{name: f"{kind}(reactor, {meant})" for name, meant in contexts.items()},
    }


_TLS_SYNONYMS = _tls_synonyms("Client")

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
    **_TLS_SYNONYMS,
    "tls": "Client(reactor, HttpSettings(tls=…))",
    "tls_policy": "Client(tls_policy=…)",
    **dict.fromkeys(("transport", "agent", "pool"), "Client(agent=…)"),
    **dict.fromkeys(("cookiejar", "jar"), "Client(cookiejar=…)"),
    **{name: f"Client({name}=…)" for name in ("base_url", "egress", "report", "resolver", "store")},
    "trust_env": 'HttpSettings(proxy="environment")',
    "max_redirects": "HttpSettings(max_redirects=…)",
    "user_agent": 'headers={"User-Agent": …}',
    **dict.fromkeys(
        ("expect100", "expect", "expect_continue"), 'headers={"Expect": "100-continue"}'
    ),
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
    **{name: _TLS_SYNONYMS[name] for name in ("verify", "cert")},
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
        "stale_if_error": "Client(reactor, HttpSettings(cache=CacheSettings(stale_if_error=…)))",
        **dict.fromkeys(
            ("cache_file", "cache_name"),
            "Client(reactor, HttpSettings(cache=CacheSettings(file=…)))",
        ),
        "limits": "Client(reactor, HttpSettings(max_per_origin=…))",
        "trust_env": 'Client(reactor, HttpSettings(proxy="environment"))',
        **dict.fromkeys(("follow_redirects", "redirects"), "client.get(url, allow_redirects=…)"),
        **_TLS_SYNONYMS,
        **dict.fromkeys(("hooks", "event_hooks"), "on_request, on_response"),
        **dict.fromkeys(("transport", "pool", "connector"), "agent"),
        **dict.fromkeys(("cookie_jar", "jar"), "cookiejar"),
        **dict.fromkeys(("loop", "clock"), "reactor"),
    }


def agent_synonyms(settings: Iterable[str]) -> dict[str, str]:
    """
    Return what to write for arguments of Twisted's ``Agent``, and for settings, to an agent.

    :param settings: names of the fields of ``HttpSettings``.
    """
    written = "HTTPAgent(reactor, HttpSettings({}=…))"
    return {
        **{name: written.format(name) for name in settings},
        "connectTimeout": written.format("connect_timeout"),
        "pool": written.format("idle_per_origin"),
        **_tls_synonyms("HTTPAgent"),
    }


class _Synonym:
    """
    Stands for an attribute that there is not.

    Not ``__getattr__``, with which Python looks every attribute up the slow way, those that there
    are, too: that took a twentieth of the time of a plain GET.
    """

    def __init__(self, kind: type, name: str, meant: str) -> None:
        self._said = f"{kind.__name__} has no attribute {name}; did you mean {meant}?"

    def __get__(self, thing: object, kind: type | None = None) -> NoReturn:
        raise AttributeError(self._said)


def with_synonyms(synonyms: Mapping[str, str]) -> Callable[[type[_T]], type[_T]]:
    """
    Return a decorator of classes: what others call their attributes raises an error with these.

    :param synonyms: what is meant, by name; of no attribute of the class.
    """

    def decorate(kind: type[_T]) -> type[_T]:
        for name, meant in synonyms.items():
            setattr(kind, name, _Synonym(kind, name, meant))
        return kind

    return decorate
