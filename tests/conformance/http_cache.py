"""
Run the tests of https://cache-tests.fyi against our cache.

The npm package ``http-cache-tests`` has the tests, as data, and their origin server. It is fetched
with ``npm pack`` and not installed; Node and npm must be available::

    python -m tests.conformance.http_cache            # as a private cache
    python -m tests.conformance.http_cache --shared   # as a shared one

It prints the score and each test of the kinds ``required`` and ``optimal`` that did not pass, with
the reason that ``http_cache.json`` records. Its exit status is 1 if a test without a reason failed,
or one with a reason passed. A test counts only if those that it depends on have passed; tests of
the kind ``check`` observe behaviour that is neither right nor wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.task import deferLater, react
from twisted.web.http_headers import Headers

from twisted_net.errors import FetchError
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.bodies import BytesProducer, collect, response_fields
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.fields import HeaderFields
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings

PACKAGE = "http-cache-tests@0.4.5"
RECORD = Path(__file__).with_name("http_cache.json")
AT_A_TIME = 25
PAUSE = 3.0
"""Seconds that the suite waits for short lifetimes to end."""

_DATES = {"date", "expires", "last-modified", "if-modified-since", "if-unmodified-since"}
_LOCATIONS = {"location", "content-location"}
_SHARED = re.compile(r"\bshared\b", re.IGNORECASE)
_RFC850 = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

Step = dict[str, Any]  # Any: JSON, as the suite has it


class NotPassed(Exception):
    """An expectation of a test failed."""


class Answer:
    """A response as the suite sees it: field lines of one name joined."""

    def __init__(self, status: int, fields: HeaderFields, body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.text = body.decode("utf-8", "replace")

    def number(self, name: str) -> int | None:
        """The number that a field starts with."""
        match = re.match(r"\s*(-?[0-9]+)", self.fields.get(name, ""))
        return int(match[1]) if match else None


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")


def demand(holds: bool, message: str) -> None:
    """Fail the test unless *holds*."""
    if not holds:
        raise NotPassed(message)


def real(name: str, value: Any, fields: HeaderFields, step: Step) -> str:
    """Return the field value for a number of seconds, or for a location below the test's URL."""
    name = name.lower()
    if name in _DATES and isinstance(value, int):
        moment = int(fields.get("server-now", "0")) // 1000 + value
        text = formatdate(moment, usegmt=True)
        if name in step.get("rfc850date", ()):
            _, day, month, year, clock, _ = text.split()
            weekday = _RFC850[time.gmtime(moment).tm_wday]
            text = f"{weekday}, {day}-{month}-{year[2:]} {clock} GMT"
        return text
    if name in _LOCATIONS and step.get("magic_locations"):
        base = fields.get("server-base-url", "")
        return f"{base}/{value}" if value else base
    return str(value)


class Run:
    """One test: its requests through a cache of its own, and their checks."""

    def __init__(self, test: Step, reactor: Any, base: str, shared: bool) -> None:
        self.test = test
        self.steps: list[Step] = [
            {**step, "name": test["name"], "id": test["id"]} for step in test["requests"]
        ]
        self.base = base
        self.reactor = reactor
        self.token = str(uuid.uuid4())
        self.answers: list[Answer] = []
        cache = CacheSettings(shared=shared)
        # The origin counts requests: none is repeated.
        settings = HttpSettings(timeout=10.0, retry=RetryPolicy(retries=0), cache=cache)
        plain = HttpSettings(retry=RetryPolicy(retries=0), cache=CacheSettings(enabled=False))
        self.agent = HTTPAgent(reactor, settings)
        self.control = HTTPAgent(reactor, plain)

    async def verdict(self) -> str | None:
        """Return why the test did not pass, or None where it did."""
        try:
            config = json.dumps(self.steps).encode()
            type_ = ("Content-Type", "application/json")
            answer = await self.ask(self.control, "PUT", f"config/{self.token}", [type_], config)
            demand(answer.status == 201, "the origin rejected the test")
            for number, step in enumerate(self.steps, 1):
                await self.take(number, step)
                if step.get("pause_after"):
                    await deferLater(self.reactor, PAUSE)
            answer = await self.ask(self.control, "GET", f"state/{self.token}", [], None)
            seen = json.loads(answer.text) if answer.status == 200 else []
            self.check_origin(seen)
        except (NotPassed, FetchError) as error:
            return str(error)
        finally:
            await self.agent.close()
            await self.control.close()
        return None

    async def ask(
        self,
        agent: HTTPAgent,
        method: str,
        path: str,
        fields: Sequence[tuple[str, str]],
        body: bytes | None,
    ) -> Answer:
        """Make one request."""
        headers = Headers()
        for name, value in fields:
            headers.addRawHeader(name.encode(), value.strip().encode("latin-1"))
        producer = None if body is None else BytesProducer(body)
        url = f"{self.base}/{path}".encode()
        response = await agent.request(method.encode(), url, headers, producer)
        content = b"" if response.length == 0 else (await collect(response))[0]
        return Answer(response.code, response_fields(response), content)

    async def take(self, number: int, step: Step) -> None:
        """Make the request of one step and check its response."""
        before = self.answers[-1].fields if self.answers else HeaderFields()
        fields = [
            (name, real(name, value, before, step) if step.get("magic_ims") else str(value))
            for name, value in step.get("request_headers", ())
        ]
        fields += [("Test-ID", step["id"]), ("Req-Num", str(number))]
        if step.get("cache") == "no-cache":
            fields.append(("Cache-Control", "max-age=0"))  # what a browser's reload sends
        path = f"test/{self.token}"
        path += f"/{step['filename']}" if "filename" in step else ""
        path += f"?{step['query_arg']}" if "query_arg" in step else ""
        body = step["request_body"].encode() if "request_body" in step else None
        answer = await self.ask(self.agent, step.get("request_method", "GET"), path, fields, body)
        self.answers.append(answer)
        self.check(number, step, answer)

    def check(self, number: int, step: Step, answer: Answer) -> None:
        """Check one response."""
        count, kind = answer.number("server-request-count"), step.get("expected_type")
        if kind == "cached" and not (answer.status == 304 and count is None):
            demand(count is not None and count < number, f"response {number} is not cached")
        if kind == "not_cached":
            demand(count == number, f"response {number} is cached")
        wanted = step.get("expected_status", (step.get("response_status") or [200])[0])
        if wanted is not None:
            demand(answer.status == wanted, f"response {number} is {answer.status}, not {wanted}")
        for header in step.get("expected_response_headers", ()):
            self.check_header(number, step, answer, header)
        for header in step.get("expected_response_headers_missing", ()):
            if isinstance(header, str):
                demand(header not in answer.fields, f"response {number} has {header}")
        if "expected_interim_responses" in step:
            demand(not step["expected_interim_responses"], "1xx is not shown by Twisted's Agent")
        if step.get("check_body") is not False:
            self.check_body(number, step, answer)

    def check_header(self, number: int, step: Step, answer: Answer, header: Any) -> None:
        """Check one field: present, of a value, equal to another, or greater than a number."""
        name = header if isinstance(header, str) else header[0]
        found = answer.fields.get(name)
        demand(found is not None, f"response {number} has no {name}")
        if isinstance(header, str):
            return
        if len(header) == 2:
            wanted = real(name, header[1], answer.fields, step)
            holds = found == wanted
        elif header[1] == "=":
            wanted = str(answer.fields.get(header[2]))
            holds = found == wanted
        else:
            wanted = f"more than {header[2]}"
            value = answer.number(name)
            holds = value is not None and value > header[2]
        demand(holds, f"response {number}: {name} is {found}, not {wanted}")

    def check_body(self, number: int, step: Step, answer: Answer) -> None:
        """Check the body: by default it is the token of the test."""
        wanted: str | None = self.token
        if "expected_response_text" in step:
            wanted = step["expected_response_text"]
        elif step.get("response_body") is not None:
            wanted = step["response_body"]
        elif answer.status in (204, 304) or step.get("request_method") == "HEAD":
            wanted = None
        demand(wanted is None or answer.text == wanted, f"response {number} has another body")

    def check_origin(self, seen: list[Step]) -> None:
        """Check the requests that reached the origin."""
        place = 0
        for number, (step, answer) in enumerate(zip(self.steps, self.answers, strict=True), 1):
            kind = step.get("expected_type")
            if kind == "cached":
                continue
            request: Step = seen[place] if place < len(seen) else {}
            place += 1
            fields = request.get("request_headers", {})
            if kind == "not_cached":
                demand(request.get("request_num") == number, f"request {number} did not arrive")
            for type_, name in (
                ("etag_validated", "if-none-match"),
                ("lm_validated", "if-modified-since"),
            ):
                demand(kind != type_ or name in fields, f"request {number} has no {name}")
            for header in step.get("expected_request_headers", ()):
                if isinstance(header, str):
                    demand(header.lower() in fields, f"request {number} has no {header}")
                else:
                    found = fields.get(header[0].lower())
                    demand(found == header[1], f"request {number}: {header[0]} is {found}")
            for header in step.get("expected_request_headers_missing", ()):
                name, value = (header, None) if isinstance(header, str) else header
                found = fields.get(name.lower())
                demand(found is None or found == value is not None, f"request {number}: {name}")
            for name, value in request.get("response_headers", ()):
                text = ", ".join(value) if isinstance(value, list) else str(value)
                if name.lower() != "date":
                    got = answer.fields.get(name)
                    demand(got == text, f"response {number}: {name} is {got}, not {text}")
            if "expected_method" in step:
                method = request.get("request_method")
                demand(method == step["expected_method"], f"request {number} was {method}")


def applies(test: Step, shared: bool) -> bool:
    """
    Return whether a test is for this kind of cache inside a client.

    ``browser_skip`` marks tests that ``fetch()`` does not allow, and those for shared caches;
    ``cdn_only`` is about ``Surrogate-Control``, which no RFC describes.
    """
    if test.get("cdn_only"):
        return False
    if shared:
        return not test.get("browser_only")
    return not (test.get("browser_skip") and _SHARED.search(test["name"]))


def fetch_package(folder: Path) -> Path:
    """Fetch and unpack the suite; return its directory."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True
    )
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def read_tests(suite: Path) -> list[Step]:
    """Read all tests, in the order of the suite."""
    script = "import(process.argv[1]).then(m => console.log(JSON.stringify(m.default)))"
    printed = subprocess.run(
        ["node", "--no-warnings", "-e", script, str(suite / "tests" / "index.mjs")],
        check=True,
        capture_output=True,
    )
    return [test for group in json.loads(printed.stdout) for test in group["tests"]]


class Origin:
    """The suite's server, on a free port."""

    def __init__(self, suite: Path, folder: Path) -> None:
        # The suite prints the port that it got for port 0.
        settings = {"protocol": "http", "port": "0", "pidfile": str(folder / "pid")}
        env = {**os.environ, **{f"npm_config_{name}": value for name, value in settings.items()}}
        self._server = subprocess.Popen(
            ["node", str(suite / "server" / "server.mjs")],
            cwd=suite,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        output = cast(Any, self._server.stdout)  # Any: a pipe was asked for
        port = re.search(r":([0-9]+)/\s*$", output.readline())
        assert port is not None, "the suite's server did not start"
        self.base = f"http://localhost:{port[1]}"
        # Its warnings are not read, and must not fill the pipe.
        self._drain = subprocess.Popen(["cat"], stdin=output, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        """End it."""
        for process in (self._server, self._drain):
            process.terminate()
            process.wait(10)


async def run_all(
    reactor: Any, tests: list[Step], base: str, shared: bool
) -> dict[str, str | None]:
    """Run the tests, some at a time; return for each why it did not pass, or None."""
    results: dict[str, str | None] = {}
    turns = DeferredSemaphore(AT_A_TIME)

    async def one(test: Step) -> None:
        results[test["id"]] = await Run(test, reactor, base, shared).verdict()

    def start(test: Step) -> Deferred[None]:
        return Deferred.fromCoroutine(one(test))

    await gatherResults([turns.run(start, test) for test in tests], consumeErrors=True)
    return results


def passed(test: Step, results: dict[str, str | None], tests: dict[str, Step]) -> bool:
    """Return whether a test and all that it depends on have passed."""
    return results.get(test["id"], "not run") is None and all(
        other not in tests or passed(tests[other], results, tests)
        for other in test.get("depends_on", ())
    )


def report(tests: list[Step], results: dict[str, str | None], known: dict[str, str]) -> int:
    """Print the score; return how many tests are not as recorded."""
    by_id = {test["id"]: test for test in tests}
    score: Counter[tuple[str, bool]] = Counter()
    surprises = 0
    for test in tests:
        kind, good = test.get("kind", "required"), passed(test, results, by_id)
        score[kind, good] += 1
        if kind == "check" or good == (test["id"] not in known):
            if kind != "check" and not good:
                say(f"  {kind:8} {test['id']}: {known[test['id']]}")
            continue
        surprises += 1
        what = results[test["id"]] or "depends on one that failed"
        say(f"! {kind:8} {test['id']}: {'passes now' if good else what}")
    for kind in ("required", "optimal", "check"):
        say(f"{kind:8} {score[kind, True]} of {score[kind, True] + score[kind, False]}")
    return surprises


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite and print the results; see the head of this file."""
    parser = argparse.ArgumentParser(description="Run http-cache-tests against our cache.")
    parser.add_argument("--shared", action="store_true", help="as a shared cache")
    parser.add_argument("--suite", type=Path, help="where the suite is unpacked already")
    options = parser.parse_args(arguments)
    if shutil.which("node") is None or (options.suite is None and shutil.which("npm") is None):
        parser.error("node and npm are needed")
    record = json.loads(RECORD.read_text())
    known: dict[str, str] = {
        test: reason
        for reason, ids in record["both"] + record["shared" if options.shared else "private"]
        for test in ids
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        suite = options.suite.resolve() if options.suite else fetch_package(folder)
        tests = [test for test in read_tests(suite) if applies(test, options.shared)]
        origin = Origin(suite, folder)
        results: dict[str, str | None] = {}

        async def run(reactor: Any) -> None:
            results.update(await run_all(reactor, tests, origin.base, options.shared))

        try:
            react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
        except SystemExit as end:
            if end.code:
                raise
        finally:
            origin.stop()
    say(f"{PACKAGE} as a {'shared' if options.shared else 'private'} cache")
    return 1 if report(tests, results, known) else 0


if __name__ == "__main__":
    sys.exit(main())
