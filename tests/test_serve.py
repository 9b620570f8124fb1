"""The HTTP API: real requests to a real server, beside a model that learns in its own thread."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
import threading
from pathlib import Path

import pytest
from api_stories import Running, config

from streammeta.config import ModelConfig
from streammeta.config_file import load_config
from streammeta.engine import Engine
from streammeta.errors import ConfigError, SinkError, SourceError
from streammeta.events import Event
from streammeta.serve.app import make_app
from streammeta.serve.guard import Rates
from streammeta.serve.openapi import description
from streammeta.serve.outlet import BEHIND, Reader
from streammeta.serve.published import OFTEN, SELDOM, Published, PublishedModel
from streammeta.serve.server import ApiServer
from streammeta.sources import IterableSource
from streammeta.sources.merged import MergedSource
from streammeta.store import LocalStore
from streammeta.testing import PAUSE, FakeClock, ScriptedSource

COMMITS = '[checkpoint]\nfolder = "commits"\n'


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make(serve: str = "", more: str = "", *, task="classification", drive=True) -> Running:
        made.append(Running(config(tmp_path, serve, more, task)))
        return made[-1].drive() if drive else made[-1]

    yield make
    for each in made:
        each.close()


def rows(n: int, first: int = 0) -> list[dict]:
    return [
        {"id": f"e{i}", "x": {"t": float(i * i % 23), "day": ["mon", "tue"][i % 2]},
         "y": "high" if i * i % 23 > 11 else "low"}
        for i in range(first, first + n)
    ]  # fmt: skip


def alone(events: list[dict], task: str = "classification") -> Engine:
    """An engine that has learned the same, without any of this."""
    engine = Engine(ModelConfig(task=task, seed=3))
    for event in events:
        engine.observe([Event(event["id"], event.get("x"), event.get("y"))])
        engine.replay()
    return engine


# -- questions and answers -----------------------------------------------------------------------


def test_a_prediction_over_http_is_that_of_the_engine(run):
    running = run()
    assert running.post("/v1/predict", {"x": {"t": 3.0}}) == {"prediction": None, "rows": 0}
    running.send(rows(150))
    running.learned(150)
    engine = alone(rows(150))
    for x in ({"t": 21.0, "day": "mon"}, {"t": 3.0}, {"t": None, "day": "never"}, {"new": True}):
        told = running.post("/v1/predict", {"x": x})
        label, shares = engine.answers([x])[0]
        assert told == {"prediction": label, "rows": 150, "probabilities": shares}
    assert engine.snapshot().to_bytes() == running.state


def test_numbers_are_predicted_as_numbers(run):
    running = run(task="regression")
    events = [{**event, "y": event["x"]["t"] / 7} for event in rows(80)]
    running.send(events)
    running.learned(80)
    told = running.post("/v1/predict", {"x": {"t": 8.0, "day": "tue"}})
    expected = alone(events, "regression").predict({"t": 8.0, "day": "tue"})
    assert told == {"prediction": expected, "rows": 80}


def test_a_question_with_an_id_is_learned_from_when_its_label_comes(run):
    running = run()
    running.send(rows(40))
    running.learned(40)
    told = running.post("/v1/predict", {"id": "q", "x": {"t": 21.0, "day": "mon"}})
    assert (told["id"], told["record"]) == ("q", 40)
    running.until(lambda status: status["model"]["pending"] == 1)
    answered = running.post("/v1/labels", {"id": "q", "y": "high"})
    assert answered == {"accepted": 1, "first": 41}
    running.learned(41)
    events = [
        *rows(40), {"id": "q", "x": {"t": 21.0, "day": "mon"}}, {"id": "q", "y": "high"},
    ]  # fmt: skip
    assert alone(events).snapshot().to_bytes() == running.state


def test_labels_of_questions_that_came_as_events(run):
    running = run()
    questions = [{"id": f"q{i}", "x": {"t": float(i)}} for i in range(5)]
    assert running.send(questions) == {"accepted": 5, "first": 0}
    told = running.post("/v1/labels", [{"id": f"q{i}", "y": "a"} for i in range(5)])
    assert told == {"accepted": 5, "first": 5}
    running.learned(5)
    status = running.until(lambda status: status["events"] == 10)
    assert status["outputs"]["Scored"] == 5


def test_questions_of_many_clients_at_once_get_their_own_answers(run):
    running = run()
    running.send(rows(120))
    running.learned(120)
    engine, found = alone(rows(120)), {}

    def client(first: int) -> None:
        for t in range(first, 23, 8):
            found[t] = running.post("/v1/predict", {"x": {"t": float(t)}})["probabilities"]

    clients = [threading.Thread(target=client, args=(first,)) for first in range(8)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert found == {t: engine.answers([{"t": float(t)}])[0][1] for t in range(23)}


def test_predictions_do_not_wait_for_a_model_at_work(run, monkeypatch):
    running = run()
    running.send(rows(60))
    running.learned(60)
    engine, at_work, go_on = running.engine, threading.Event(), threading.Event()
    observe = engine.observe

    def slowly(events):
        at_work.set()
        go_on.wait()
        return observe(events)

    monkeypatch.setattr(engine, "observe", slowly)
    running.send(rows(1, first=60))
    at_work.wait()
    try:
        for _ in range(3):
            assert running.post("/v1/predict", {"x": {"t": 21.0}})["rows"] == 60
    finally:
        go_on.set()
    running.learned(61)
    assert running.post("/v1/predict", {"x": {"t": 21.0}})["rows"] == 61


# -- what is refused -----------------------------------------------------------------------------


def test_what_is_refused_changes_nothing(run):
    running = run('token = "secret"')
    running.send(rows(30))
    running.learned(30)
    state, records = running.state, running.parts.inlet.inbox.journal.end
    lines, predict = {"Content_Type": "application/x-ndjson"}, "/v1/predict"
    for status, path, body, headers in (
        (401, "/v1/events", b"{}", {"Authorization": ""}),
        (401, predict, {"x": {}}, {"Authorization": "Bearer Secret"}),
        (401, predict, {"x": {}}, {"Authorization": "secret"}),
        (401, "/v1/adapt", {}, {"Authorization": "Basic !"}),
        (413, "/v1/events", b" " * (1024 * 1024 + 1), lines),
        (400, "/v1/events", b'{"id": "a", "x": {"t": 1}, "y": "low"}\nno JSON\n', lines),
        (400, "/v1/labels", b'{"id": "e1", "y": NaN}', {}),
        (400, predict, b'{"x": {"t": 1}', {}),
        (400, predict, b'\xff{"x": {}}', {}),
        (400, predict, b"[" * 100_000, {}),
        (415, "/v1/events", b"{}", {"Content_Type": "text/plain"}),
        (422, "/v1/events", b"17\n", lines),
        (422, "/v1/events", b"\n\n", lines),
        (422, "/v1/labels", {"y": "low"}, {}),
        (422, "/v1/labels", {"id": "e1"}, {}),
        (422, "/v1/labels", [{"id": "e1", "y": "low"}, {"id": "e2", "y": {}}], {}),
        (422, predict, {"x": {"t": "text"}}, {}),
        (422, predict, {"x": {"t": [1]}}, {}),
        (422, predict, {"x": {}, "y": 1}, {}),
        (422, predict, {"id": "q", "x": {"t": 1}, "ts": "no time"}, {}),
        (422, "/v1/adapt", {"keys": ["a"]}, {}),
        (409, "/v1/adapt", {"key": "nobody"}, {}),
        (409, "/v1/snapshot", None, {}),
        (404, "/v1/nothing", {}, {}),
    ):
        found, told, _ = running.ask("POST", path, body, **headers)
        assert found == status, (path, body[:80] if isinstance(body, bytes) else body, told)
        assert told["error"]
    assert running.ask("GET", predict)[0] == 405
    assert running.ask("GET", "/v1/status", Authorization="")[0] == 401
    assert running.ask("GET", "/metrics", Authorization="")[0] == 401
    assert running.state == state
    assert running.parts.inlet.inbox.journal.end == records


def test_a_body_of_100_mb_is_refused_before_it_is_read(run):
    running = run()
    state = running.state
    host, _, port = running.serving.address.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as link:
        link.sendall(
            b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/x-ndjson\r\nContent-Length: 100000000\r\n\r\n"
        )
        assert link.recv(4096).startswith(b"HTTP/1.1 413")
    link = http.client.HTTPConnection(host, int(port), timeout=30)
    with pytest.raises(OSError):  # whoever sends on regardless is hung up on
        link.request("POST", "/v1/events", b" " * 100_000_000)
    link.close()
    assert running.state == state
    assert running.post("/v1/predict", {"x": {}})["rows"] == 0


def test_a_body_without_a_length_may_not_be_longer_either(run):
    running = run("max_bytes = 1000")
    host, _, port = running.serving.address.removeprefix("http://").rpartition(":")
    for size, status in ((900, 200), (1100, 413)):
        link = http.client.HTTPConnection(host, int(port), timeout=30)
        body = (b'{"x": {"t": 1}}\n' + b"\n" * (size - 16) for _ in range(1))
        headers = {"Content-Type": "application/x-ndjson"}
        link.request("POST", "/v1/events", body, headers, encode_chunked=True)
        assert link.getresponse().status == status
        link.close()


def test_a_run_that_drains_is_not_ready_any_more_but_alive(run):
    running = run()
    assert running.get("/readyz") == "ready\n"
    running.stop()
    assert running.ask("GET", "/readyz")[0] == 503
    assert running.get("/livez") == "ok\n"


def test_browsers_get_in_with_the_token_as_password_and_other_sites_do_not(run):
    running = run('token = "secret"')
    basic = base64.b64encode(b"anybody:secret").decode()
    running.get("/v1/status", Authorization=f"Basic {basic}")
    assert running.get("/livez", Authorization="") == "ok\n"
    assert running.get("/readyz", Authorization="") == "ready\n"
    _, _, headers = running.ask("GET", "/v1/status", Authorization="")
    assert headers["www-authenticate"] == 'Bearer realm="streammeta", Basic realm="streammeta"'


def test_without_a_token_only_this_machine_is_listened_to(run):
    running = run()
    assert running.ask("GET", "/v1/status", Host="evil.example:8788")[0] == 421
    for host in ("localhost", "api.localhost:8788", "127.0.0.1:9", "[::1]:9"):
        assert running.ask("GET", "/v1/status", Host=host)[0] == 200


def test_a_full_queue_is_429_and_takes_nothing(run):
    running = run("queue = 5", drive=False)
    running.send(rows(4))
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows(2))
    status, told, headers = running.ask("POST", "/v1/events", lines)
    assert (status, headers["retry-after"]) == (429, "1")
    assert told == {"error": "5 events wait to be read"}
    assert running.parts.inlet.inbox.journal.end == 4
    running.drive()
    running.learned(4)
    assert running.send(rows(2, first=4)) == {"accepted": 2, "first": 4}


def test_an_address_that_asks_too_often_is_429(run):
    running = run("requests_per_second = 0.001")
    assert running.ask("GET", "/livez")[0] == 200
    status, told, headers = running.ask("GET", "/livez")
    assert (status, headers["retry-after"]) == (429, "1000")
    assert told == {"error": "more than 0.001 requests a second"}


def test_a_second_of_requests_may_come_at_once_and_then_as_many_as_the_rate_allows():
    clock = FakeClock()
    rates = Rates(5, clock.now)
    assert [rates.wait("a") for _ in range(5)] == [0.0] * 5
    assert rates.wait("a") == pytest.approx(0.2)
    assert rates.wait("b") == 0.0
    clock.sleep(0.2)
    assert [rates.wait("a") for _ in range(2)] == [0.0, pytest.approx(0.2)]


def test_without_a_journal_nothing_is_taken(run, tmp_path):
    path = config(tmp_path)
    text = path.read_text().replace('journal = "journal"\n', "")
    path.write_text(text + '[source]\nscenario = "sea"\nrows = 40\n')
    running = Running(path)
    try:
        for where, body in (
            ("/v1/events", {"x": {"a": 1}}),
            ("/v1/labels", {"id": "a", "y": 1}),
            ("/v1/predict", {"id": "a", "x": {"a": 1}}),
        ):
            status, told, _ = running.ask("POST", where, body)
            assert status == 409
            assert "serve.journal" in told["error"]
        assert running.post("/v1/predict", {"x": {"a": 1}})["prediction"] is None
    finally:
        running.close()


# -- what is told --------------------------------------------------------------------------------


def test_a_stream_shows_outputs_as_they_come(run):
    running = run()
    found = []
    host, _, port = running.serving.address.removeprefix("http://").rpartition(":")
    link = http.client.HTTPConnection(host, int(port), timeout=60)
    link.request("GET", "/v1/stream?kinds=scored,rejected")
    answer = link.getresponse()
    assert answer.getheader("Content-Type", "").startswith("text/event-stream")
    assert answer.readline() == b": outputs as they come\n"
    running.send([*rows(3), {"id": "nobody asked", "y": "low"}])
    while len(found) < 4:
        line = answer.readline()
        if line.startswith(b"data: "):
            found.append(json.loads(line.removeprefix(b"data: ")))
    link.close()
    assert [(r["kind"], r["id"]) for r in found] == [
        ("scored", "e0"), ("scored", "e1"), ("scored", "e2"), ("rejected", "nobody asked"),
    ]  # fmt: skip


def test_a_stream_ends_when_its_seconds_are_over_and_with_the_run(run):
    running = run("streams = 1")
    assert running.get("/v1/stream?seconds=0") == ": outputs as they come\n\n"
    assert running.ask("GET", "/v1/stream?kinds=nothing")[0] == 422
    assert running.ask("GET", "/v1/stream?seconds=nan")[0] == 422
    host, _, port = running.serving.address.removeprefix("http://").rpartition(":")
    link = http.client.HTTPConnection(host, int(port), timeout=60)
    link.request("GET", "/v1/stream")
    answer = link.getresponse()
    assert answer.readline().startswith(b":")
    status, _, headers = running.ask("GET", "/v1/stream")
    assert (status, headers["retry-after"]) == (429, "1")
    running.close()
    assert b"outputs" not in answer.read()
    link.close()


def test_a_reader_that_is_too_slow_loses_the_oldest_and_is_told():
    async def story() -> tuple[list[int], int]:
        reader = Reader(frozenset(["scored"]))
        for number in range(BEHIND + 7):
            reader.give(number, {"kind": "scored"})
            reader.give(number, {"kind": "predicted"})
        reader.close()
        numbers = [number async for batch in reader.batches(60.0) for number, _ in batch]
        return numbers, reader.lost

    assert asyncio.run(story()) == (list(range(7, BEHIND + 7)), 7)


def test_drifts_are_told_with_their_explanations(run):
    running = run()
    flipped = [{**row, "y": "low" if row["y"] == "high" else "high"} for row in rows(120, 300)]
    running.send([*rows(300), *flipped])
    running.learned(420)
    told = running.get("/v1/drifts")["drifts"]
    assert told[0]["kind"] == "drift_detected"
    assert 300 <= told[0]["row"] <= 420
    assert told[0]["explanation"]["votes"]
    assert running.get("/v1/drifts?limit=0")["drifts"] == []
    assert running.ask("GET", "/v1/drifts?limit=-1")[0] == 422
    for path in ("/v1/drifts?limits=3", "/v1/status?limit=3", "/v1/stream?kind=drift"):
        code, fault, *_ = running.ask("GET", path)
        assert code == 422
        assert "no query parameter is called" in str(fault)


def test_status_and_metrics_tell_how_it_goes(run):
    running = run()
    running.send(rows(60))
    running.learned(60)
    # the model is looked at once a second
    status = running.until(lambda told: told["model"]["rows"] == 60)
    assert status["source"] == "api"
    assert status["queue"] == 0
    assert status["copy"]["rows"] == 60
    assert 0 < status["score"]["accuracy"] < 1
    text = running.get("/metrics")
    assert 'streammeta_events_ingested_total{source="api"} 60.0' in text
    _, text, headers = running.ask("GET", "/metrics", Accept="application/openmetrics-text")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


# -- the model's thread --------------------------------------------------------------------------


def test_adapting_on_request_is_told_and_committed(run):
    running = run(more=COMMITS)
    running.send(rows(70))
    running.learned(70)
    told = running.post("/v1/adapt")
    assert [a["trigger"] for a in told["adapted"]] == ["request", "request"]
    assert {a["support"] for a in told["adapted"]} == {70, 64}
    record = LocalStore("commits").latest(0)
    assert (record.epoch, record.events) == (told["epoch"], 70)
    assert record.snapshot.to_bytes() == running.state
    assert running.get("/v1/status")["outputs"]["Adapted"] >= 2
    running.until(lambda status: not status["copy"]["stale"])
    label, shares = running.engine.answers([{"t": 9.0}])[0]
    assert running.post("/v1/predict", {"x": {"t": 9.0}})["probabilities"] == shares
    assert label in shares


def test_a_commit_on_request(run):
    running = run(more=COMMITS)
    running.send(rows(10))
    running.learned(10)
    assert running.post("/v1/snapshot", {}) == {"epoch": 1, "events": 10}
    assert running.post("/v1/snapshot", {}) == {"epoch": 1, "events": 10}  # nothing has come since
    assert LocalStore("commits").latest(0).events == 10


def test_a_run_that_is_taken_up_again_answers_at_once(run):
    running = run(more=COMMITS)
    running.send(rows(50))
    running.learned(50)
    told = running.post("/v1/predict", {"x": {"t": 21.0}})
    running.close()
    again = run(more=COMMITS)
    assert again.post("/v1/predict", {"x": {"t": 21.0}}) == told


# -- the copy ------------------------------------------------------------------------------------


def test_a_copy_comes_when_the_last_one_is_long_enough_ago():
    clock = FakeClock()
    published = Published(clock.now)
    engine = alone(rows(3))
    assert not published.due()
    assert published.answers([({"t": 1.0}, "")]) == ([(None, None)], 0)
    published.touch([""])
    assert published.due()
    assert published.publish(engine.state)
    assert not published.publish(engine.state)  # nothing has come since
    published.touch([""])
    assert not published.due()
    clock.sleep(0.75 * OFTEN)
    assert published.statistics().stale == pytest.approx(0.75 * OFTEN)
    clock.sleep(0.5 * OFTEN)
    assert published.due()
    assert published.publish(engine.state)
    told = published.statistics()
    assert (told.stale, told.copies, told.rows) == (0.0, 2, 3)
    assert told.stale_max == pytest.approx(1.25 * OFTEN)


def test_a_large_model_is_copied_less_often_but_often_enough():
    clock = FakeClock()

    def slow() -> float:
        clock.sleep(0.01)  # every look at the clock takes that long, and so does a copy
        return clock.now()

    published = Published(slow)
    engine = alone(rows(3))
    published.touch([""])
    assert published.publish(engine.state)
    assert published.statistics().took == pytest.approx(0.01)
    published.touch([""])
    assert not published.due()
    clock.sleep(SELDOM)
    assert published.due()


def test_a_side_that_is_still_asked_is_not_renewed():
    published = Published()
    engine = alone(rows(30))
    model = PublishedModel(engine, published)
    model.observe([Event("a", {"t": 1.0}, "low")])
    model.publish()
    with published._sides[0].lock:  # somebody asks the one that stands behind by now
        model.observe([Event("b", {"t": 2.0}, "low")])
        assert not published.publish(engine.state)
        assert published.answers([({"t": 1.0}, "")])[1] == 31
    assert published.publish(engine.state)
    found, seen = published.answers([({"t": 1.0}, "")])
    assert (found, seen) == (engine.answers([{"t": 1.0}]), 32)


def test_before_a_commit_is_written_the_copy_knows_all_that_the_commit_does():
    published = Published(FakeClock().now)  # which stands still: no copy is ever due
    model = PublishedModel(alone(rows(30)), published)
    model.observe([Event("a", {"t": 1.0}, "low")])
    assert not published.due()
    model.snapshot()
    assert published.statistics().rows == 31
    assert published.statistics().stale == 0.0


# -- how it is put together ----------------------------------------------------------------------


def test_every_route_is_described_and_nothing_else(run):
    running = run(drive=False)
    there = {
        (route.path, method.lower())
        for route in make_app(running.serving.api).routes
        for method in route.methods - {"HEAD"}
    }
    described = {
        (path, method) for path, ways in description("1")["paths"].items() for method in ways
    }
    assert there - {("/openapi.json", "get")} == described
    assert running.get("/openapi.json")["info"]["title"] == "streammeta"


def test_further_routes_stand_behind_the_same_guard(run):
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    running = run('token = "secret"', drive=False)
    page = Route("/", lambda request: PlainTextResponse("a page"))
    server = ApiServer(running.serving.api, lambda api: [page])
    try:
        link = http.client.HTTPConnection(server.host, server.port, timeout=30)
        link.request("GET", "/")
        assert link.getresponse().status == 401
        link.close()
        link.request("GET", "/", headers={"Authorization": "Bearer secret"})
        assert link.getresponse().read() == b"a page"
        link.close()
    finally:
        server.close()


def test_two_sources_as_one_lose_and_double_nothing_wherever_they_are_cut():
    stream = ScriptedSource([Event(f"s{i}") for i in range(9)], "s")
    beside = ScriptedSource([Event("b0"), PAUSE, Event("b1"), Event("b2"), PAUSE, Event("b3")], "b")
    for n in (1, 2, 3, 8):
        both = MergedSource(stream, beside)
        position, found = both.start(), []
        for _ in range(30):
            events, position = both.read(json.loads(json.dumps(position)), n)
            assert len(events) <= n
            found += [event.id for event in events]
        assert sorted(found) == sorted([*(f"s{i}" for i in range(9)), "b0", "b1", "b2", "b3"])
        for kind in "sb":
            assert [i for i in found if i[0] == kind] == sorted(i for i in found if i[0] == kind)


def test_a_stream_is_not_held_up_by_what_comes_beside_it():
    many = IterableSource(lambda: [({"a": 1.0}, 0)] * 1000, "many")
    both = MergedSource(IterableSource(lambda: [({"a": 2.0}, 0)] * 10, "few"), many)
    events, _ = both.read(both.start(), 20)
    assert sum(event.id.startswith("few") for event in events) == 10
    with pytest.raises(SourceError, match="expected one of a stream and one of"):
        both.read({"row": 3}, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[serve]\nport = 0\n[model]\ntask = "regression"\n', "source: is missing"),
        ('[serve]\nhost = "0.0.0.0"\njournal = "j"\n', "reached from elsewhere: set 'token'"),
        ('[serve]\njournal = "j"\ntokn = "x"\n', "did you mean 'token'?"),
        (
            'pace = "realtime"\n[serve]\njournal = "j"\n[source]\nscenario = "sea"\n',
            "by the times of a stream",
        ),
    ],
)  # fmt: skip
def test_a_config_that_cannot_work_says_why(tmp_path, text, told):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told.replace("?", r"\?")):
        load_config(path)


def test_a_port_that_is_taken_is_said(run, tmp_path):
    running = run(drive=False)
    port = int(running.serving.address.rpartition(":")[2])
    other = tmp_path / "other"
    other.mkdir()
    path = config(other)
    path.write_text(path.read_text().replace("port = 0", f"port = {port}"))
    path.write_text(path.read_text().replace('"journal"', f'"{other / "journal"}"'))
    with pytest.raises(SinkError, match="choose another port"):
        Running(path)


def test_the_task_has_to_be_said_where_nothing_tells_it(run, tmp_path):
    path = config(tmp_path, task="auto")
    with pytest.raises(ConfigError, match="say classification or regression"):
        Running(Path(path))
