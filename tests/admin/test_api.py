"""The HTTP API over a daemon that is only pretended, on a real socket and a real uvicorn."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from angarium.admin.api import application
from angarium.admin.prometheus import exposition
from angarium.admin.server import AdminServer
from angarium.admin.views import BadQuery, Health, QueuePage, SourcesView, SourceView, Status, Suspended
from angarium.model.address import ListenAddress
from angarium.model.errors import ConfigError
from angarium.process.control import ControlError
from angarium.process.listening import listen_alone


class Pretended:
    """admin.api.Backend with two messages; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.reload_error: Exception | None = None
        self.health_status = "ok"

    async def health(self) -> Health:
        return Health(status=self.health_status, workers=2, workers_ready=2)

    async def metrics(self) -> bytes:
        return b"angarium_x 1\n"

    async def status(self) -> Status:
        return Status(
            version="1", hostname="mx", spool="/s", config="/c", pid=1, up_s=1.0, listeners=[], workers=[]
        )

    async def queue(self, **query: Any) -> QueuePage:
        self.asked.append(query)
        if query["after"] == "bad":
            raise BadQuery("after: bad")
        return QueuePage(messages=[{"id": "A"}, {"id": "B"}], next="0:2")

    async def message(self, id_: str) -> dict[str, Any] | None:
        if id_ == "DYING":
            raise ControlError("worker 1: the worker died")
        if id_ == "BUG":
            raise RuntimeError("oops")
        return {"id": id_} if id_ in "AB" else None

    async def refusal(self, id_: str) -> dict[str, Any] | None:
        return {"id": id_, "reason": "relay-denied"} if id_ == "4GK2V9QX" else None

    async def sources(self) -> SourcesView:
        return SourcesView([SourceView("a", ["192.0.2.1"], "a.example", 1, 2, [Suspended("192.0.2.1", "no", 1.0)])])

    async def retry(self, *, id_: str | None, domain: str | None) -> int:
        self.asked.append(("retry", id_, domain))
        return 3

    async def delete(self, *, id_: str | None, domain: str | None) -> int:
        self.asked.append(("delete", id_, domain))
        return 0 if id_ == "C" else 1

    async def reload(self) -> None:
        if self.reload_error is not None:
            raise self.reload_error


class Api:
    def __init__(self, backend: Pretended, port: int) -> None:
        self.backend = backend
        self.port = port

    def ask(
        self, method: str, target: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        octets = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        connection.request(method, target, octets, headers or {})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        is_json = response.getheader("content-type", "").startswith("application/json")
        return response.status, json.loads(answer) if is_json else answer


@pytest.fixture
def api() -> Iterator[Api]:
    backend = Pretended()
    sock = listen_alone(ListenAddress("127.0.0.1", 0))
    port = sock.getsockname()[1]
    server = AdminServer(application(backend))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
    thread.start()
    yield Api(backend, port)
    server.should_exit = True
    thread.join()


def test_reading(api: Api) -> None:
    assert api.ask("GET", "/health") == (200, {"status": "ok", "workers": 2, "workers_ready": 2})
    assert api.ask("GET", "/metrics") == (200, b"angarium_x 1\n")
    assert api.ask("GET", "/v1/status")[1]["version"] == "1"
    (source,) = api.ask("GET", "/v1/sources")[1]["sources"]
    assert (source["name"], source["suspended"][0]["reason"]) == ("a", "no")
    assert api.ask("GET", "/v1/queue/A") == (200, {"id": "A"})
    assert api.ask("GET", "/v1/queue/C") == (404, {"error": "C is not in the queue"})


def test_health_is_503_while_not_all_workers_serve(api: Api) -> None:
    api.backend.health_status = "degraded"
    assert api.ask("GET", "/health")[0] == 503


def test_a_page_of_the_queue_is_asked_with_its_filters(api: Api) -> None:
    status, page = api.ask("GET", "/v1/queue?limit=2&after=0:0&domain=x.example&state=in%20hand")
    assert (status, page) == (200, {"messages": [{"id": "A"}, {"id": "B"}], "next": "0:2"})
    assert api.backend.asked == [{"after": "0:0", "limit": 2, "domain": "x.example", "state": "in hand"}]


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "error"),
    [
        ("GET", "/v1/queue?limit=0", None, 400, "limit: between 1 and 1000"),
        ("GET", "/v1/queue?limit=x", None, 400, "limit: between 1 and 1000"),
        ("GET", "/v1/queue?domian=x", None, 400, "domian: unknown parameter"),
        (
            "GET",
            "/v1/queue?state=lost",
            None,
            400,
            "state: one of routing, unrouted, ready, behind, in hand, deferred",
        ),
        ("GET", "/v1/queue?after=bad", None, 400, "after: bad"),
        ("GET", "/v1/nothing", None, 404, "Not Found"),
        ("PUT", "/v1/queue", None, 405, "Method Not Allowed"),
        ("GET", "/v1/queue/DYING", None, 503, "worker 1: the worker died"),
        ("GET", "/v1/queue/BUG", None, 500, "internal error: RuntimeError('oops')"),
        ("POST", "/v1/queue/retry", {}, 400, 'exactly one of "id", "domain" and "all" is needed'),
        ("POST", "/v1/queue/retry", {"id": "A", "all": True}, 400, 'exactly one of "id"'),
        ("POST", "/v1/queue/retry", {"idd": "A"}, 400, "Object contains unknown field `idd`"),
        ("POST", "/v1/queue/retry", b"{", 400, "Input data was truncated"),
        ("POST", "/v1/queue/retry", b" " * 100_000, 413, "the body is too large"),
        ("DELETE", "/v1/queue", None, 400, 'exactly one of "domain" and "all=true" is needed'),
        ("DELETE", "/v1/queue?domain=", None, 400, 'exactly one of "domain" and "all=true" is needed'),
        (
            "DELETE",
            "/v1/queue?domain=x&all=true",
            None,
            400,
            'exactly one of "domain" and "all=true" is needed',
        ),
        ("DELETE", "/v1/queue/C", None, 404, "C is not in the queue"),
    ],
)
def test_a_bad_request_gets_one_sentence(
    *, api: Api, method: str, target: str, body: object, status: int, error: str
) -> None:
    got, answer = api.ask(method, target, body)
    assert got == status
    assert answer["error"].startswith(error)
    assert not any(isinstance(asked, tuple) and asked[0] == "retry" for asked in api.backend.asked)


def test_orders_reach_the_daemon(api: Api) -> None:
    assert api.ask("POST", "/v1/queue/retry", {"id": "A"}) == (200, {"count": 3})
    assert api.ask("POST", "/v1/queue/retry", {"domain": "x.example"}) == (200, {"count": 3})
    assert api.ask("POST", "/v1/queue/retry", {"all": True}) == (200, {"count": 3})
    assert api.ask("DELETE", "/v1/queue/A") == (200, {"count": 1})
    assert api.ask("DELETE", "/v1/queue?domain=x.example") == (200, {"count": 1})
    assert api.ask("DELETE", "/v1/queue?all=true") == (200, {"count": 1})
    assert api.backend.asked == [
        ("retry", "A", None),
        ("retry", None, "x.example"),
        ("retry", None, None),
        ("delete", "A", None),
        ("delete", None, "x.example"),
        ("delete", None, None),
    ]


def test_a_refused_reload_is_422_with_the_reason(api: Api) -> None:
    assert api.ask("POST", "/v1/reload") == (200, {"count": 1})
    api.backend.reload_error = ConfigError("a.toml: node.spool: needs a restart")
    assert api.ask("POST", "/v1/reload") == (422, {"error": "a.toml: node.spool: needs a restart"})


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Host": "10.0.0.1:8025"}]
)
def test_what_a_web_page_could_send_is_refused(api: Api, headers: dict[str, str]) -> None:
    """There is no password: a browser on this machine must be no way in (DNS rebinding, cross-site POST)."""
    assert api.ask("DELETE", "/v1/queue?all=true", headers=headers)[0] == 403
    assert api.backend.asked == []


@pytest.mark.parametrize("host", ["localhost", "localhost:8025", "127.0.0.1:8025", "[::1]:8025"])
def test_loopback_names_are_taken(api: Api, host: str) -> None:
    assert api.ask("GET", "/health", headers={"Host": host})[0] == 200


class Figure:
    def __init__(self, name: str, kind: str, rows: dict[int, int]) -> None:
        self.name, self.kind, self.help, self.rows = name, kind, f"Says {name}\\ in\ntwo lines.", rows
        self.labels: dict[str, str] = {}

    def total(self) -> int:
        return sum(self.rows.values())

    def of_row(self, row: int) -> int:
        return self.rows.get(row, 0)


def test_a_refusal_is_told_with_its_reason(api: Api) -> None:
    status, told = api.ask("GET", "/v1/refusals/4GK2V9QX")
    assert (status, told["event"]["id"]) == (200, "4GK2V9QX")
    assert told["keys"][:2] == ["listener.relay_from", "listener.relay_to"]
    assert api.ask("GET", "/v1/refusals/00000000")[0] == 404


def test_labelled_counters_share_one_head() -> None:
    figures = [Figure("a_total", "counter", {1: 2}), Figure("a_total", "counter", {1: 3})]
    figures[0].labels, figures[1].labels = {"reason": "x"}, {"reason": 'y"\n'}
    lines = exposition(figures, [], "1").decode().splitlines()
    assert lines[-3:] == ["# TYPE a_total counter", 'a_total{reason="x"} 2', 'a_total{reason="y\\"\\n"} 3']


def test_counters_are_summed_and_gauges_told_per_worker() -> None:
    figures = [Figure("a_total", "counter", {0: 1, 1: 2, 7: 4}), Figure("b", "gauge", {1: 5, 2: 6, 7: 9})]
    lines = exposition(figures, [1, 2], '1"2').decode().splitlines()
    assert 'angarium_build_info{version="1\\"2"} 1' in lines
    assert "angarium_workers 2" in lines
    assert lines[-7:] == [
        "# HELP a_total Says a_total\\\\ in\\ntwo lines.",
        "# TYPE a_total counter",
        "a_total 7",
        "# HELP b Says b\\\\ in\\ntwo lines.",
        "# TYPE b gauge",
        'b{worker="0"} 5',
        'b{worker="1"} 6',
    ]


def test_all_counters_that_exist_make_valid_lines() -> None:
    import re

    import angarium.relay  # noqa: F401  (declares them)
    from angarium.metrics import counters

    text = exposition(counters.registry(), [1], "0").decode()
    sample = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-z]+=\"[^\"]*\"\})? -?\d+")
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line
    for figure in counters.registry():
        assert (figure.kind == "counter") == figure.name.endswith("_total"), figure.name


def test_a_busy_admin_address_is_named() -> None:
    from angarium.process.listening import CannotListen

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotListen, match="it is in use"):
        listen_alone(ListenAddress("127.0.0.1", taken.getsockname()[1]))
