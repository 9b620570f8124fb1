"""Outputs to a real HTTP receiver: each once for whoever knows a key again, whatever goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

import pytest
import servers
from outage_stories import Mends
from running_mean import RunningMean

from streammeta.config_file import load_config
from streammeta.errors import ConfigError, SinkError, UsageError
from streammeta.events import to_record
from streammeta.runtime import ShardHost
from streammeta.sinks.webhook import WebhookSink
from streammeta.sources import IterableSource
from streammeta.store import MemoryStore
from streammeta.testing import FakeClock, ListSink, sample_outputs


@pytest.fixture
def receiver(tmp_path) -> Iterator[servers.Receiver]:
    folder = tmp_path / "receiver"
    folder.mkdir()
    running = servers.Receiver(folder)
    running.start()
    yield running
    running.kill()


@pytest.fixture
def sink(receiver):
    made = []

    def make(**options) -> WebhookSink:
        options = {"clock": FakeClock(), "random": Random(1), **options}
        made.append(WebhookSink(receiver.url, **options))
        made[-1].open(None)
        return made[-1]

    yield make
    for each in made:
        each.close()


def records_of(outputs) -> list[dict]:
    return json.loads(json.dumps([to_record(o) for o in outputs]).replace("NaN", "null"))


def numbered(outputs, first=0) -> list[dict]:
    return [{"record": n, **row} for n, row in enumerate(records_of(outputs), first)]


def test_batches_are_json_lines_with_numbers_and_a_key_each(receiver, sink):
    made, outputs = sink(batch=5, token="secret", headers=["X-Plant: 7"]), sample_outputs()
    assert made.write(outputs) == len(outputs)
    assert made.position() == {"records": len(outputs)}
    requests = receiver.requests()
    assert [len(records) for _, records in requests] == [5, 5, len(outputs) - 10]
    assert [row for _, records in requests for row in records] == numbered(outputs)
    first = requests[0][0]
    assert first["Content-Type"] == "application/x-ndjson"
    assert (first["Authorization"], first["X-Plant"]) == ("Bearer secret", "7")
    assert [h["Streammeta-First-Record"] for h, _ in requests] == ["0", "5", "10"]
    assert len({h["Idempotency-Key"] for h, _ in requests}) == 3


def test_a_json_array_of_some_kinds_only(receiver, sink):
    made = sink(format="json", kinds=["predicted"])
    assert made.write(sample_outputs()) == 4
    ((headers, records),) = receiver.requests()
    assert headers["Content-Type"] == "application/json"
    assert [record["kind"] for record in records] == ["predicted"] * 4


@pytest.mark.parametrize("trouble", [{"status": 503}, {"status": 429}, {"garbage": True}])
def test_a_receiver_in_trouble_is_asked_again_ever_more_rarely(receiver, sink, trouble):
    receiver.will(*[trouble] * 4)
    made = sink()
    made.write(sample_outputs())
    assert receiver.held() == numbered(sample_outputs())
    assert len(receiver.requests()) == 1
    assert 0.05 + 0.1 + 0.2 + 0.4 <= made._outage._clock.slept <= 0.1 + 0.2 + 0.4 + 0.8


def test_retry_after_is_kept_to_as_far_as_patience_goes(receiver, sink):
    receiver.will({"status": 503, "headers": {"Retry-After": "7"}})
    made = sink(give_up_after=20)
    made.write(sample_outputs())
    assert made._outage._clock.slept == 7
    receiver.will({"status": 503, "headers": {"Retry-After": "9999"}})
    made.write(sample_outputs())
    assert made._outage._clock.slept == 27


@pytest.mark.parametrize("trouble", [{"lost": True}, {"slow": 0.4}])
def test_a_batch_whose_answer_got_lost_comes_again_under_the_same_key(receiver, sink, trouble):
    receiver.will(trouble)
    made = sink(timeout=0.2)
    made.write(sample_outputs())
    keys = [headers["Idempotency-Key"] for headers, _ in receiver.requests()]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert receiver.held() == numbered(sample_outputs())


def test_a_connection_that_the_receiver_closed_meanwhile_is_no_failure(receiver, sink):
    made = sink(give_up_after=0)
    made.write(sample_outputs())
    receiver.kill()
    receiver.start()
    made.write(sample_outputs(50))
    assert receiver.held() == numbered(sample_outputs()) + numbered(
        sample_outputs(50), len(sample_outputs())
    )
    assert made._outage._clock.slept == 0


def test_a_receiver_that_was_killed_is_waited_for(receiver, sink):
    made = sink(clock=Mends(receiver))
    made.write(sample_outputs())
    receiver.kill()
    made.write(sample_outputs(50))
    assert receiver.held() == numbered(sample_outputs()) + numbered(
        sample_outputs(50), len(sample_outputs())
    )


def test_what_is_refused_goes_to_the_dead_letters_and_the_rest_goes_on(receiver, sink, tmp_path):
    made = sink(batch=4, dead_letter=tmp_path / "dead.jsonl")
    receiver.will({}, {"status": 422})
    made.write(sample_outputs())
    made.flush()
    dead = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert dead == records_of(sample_outputs())[4:8]
    assert [row["record"] for row in receiver.held()] == [
        0,
        1,
        2,
        3,
        *range(8, len(sample_outputs())),
    ]
    assert made._outage._clock.slept == 0


def test_without_dead_letters_a_refusal_ends_the_run_with_69(receiver, sink):
    receiver.will({"status": 401})
    with pytest.raises(SinkError, match="answers 401 Unauthorized") as fault:
        sink().write(sample_outputs())
    assert fault.value.exit_code == 69


def test_a_batch_that_is_too_large_is_sent_in_halves(receiver, sink, tmp_path):
    receiver.will({"most": 3})
    made = sink(dead_letter=tmp_path / "dead.jsonl")
    made.write(sample_outputs())
    assert max(len(records) for _, records in receiver.requests()) <= 3
    assert receiver.held() == numbered(sample_outputs())
    assert (tmp_path / "dead.jsonl").read_text() == ""


def test_after_giving_up_once_every_batch_is_tried_once_until_the_receiver_is_back(
    receiver, sink, tmp_path
):
    receiver.kill()
    made = sink(batch=2, give_up_after=30, dead_letter=tmp_path / "dead.jsonl")
    made.write(sample_outputs()[:6])
    slept = made._outage._clock.slept
    assert 30 <= slept <= 36
    receiver.start()
    made.write(sample_outputs()[6:])
    made.flush()
    assert made._outage._clock.slept == slept
    dead = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert dead == records_of(sample_outputs())[:6]
    assert [row["record"] for row in receiver.held()] == list(range(6, len(sample_outputs())))


def host_of(store, sinks) -> ShardHost:
    rows = [({"a": float(i)}, float(i % 7)) for i in range(200)]
    return ShardHost(IterableSource(lambda: rows, "r"), RunningMean, store, sinks, commit_every=50)


def test_a_run_that_dies_while_it_delivers_delivers_each_output_once_in_the_end(receiver, tmp_path):
    def made(patience: float) -> WebhookSink:
        return WebhookSink(
            receiver.url, batch=7, give_up_after=patience, clock=FakeClock(), announce=True
        )

    store, whole = MemoryStore(), ListSink()
    host = host_of(store, [made(0)])
    host.open()
    host.poll(50)
    receiver.will({}, {}, {"lost": True}, {"status": 503})  # the third answer and all after it
    with pytest.raises(SinkError, match="answers 503"):
        host.poll(50)
    host.drop()
    host = host_of(store, [made(0)])
    assert host.open()  # the second commit was written: its outputs are delivered again
    while not host.finished():
        host.poll(50)
    host.close()
    other = host_of(MemoryStore(), [whole])
    other.open()
    while not other.finished():
        other.poll(50)
    other.close()
    assert receiver.held() == numbered(whole.outputs)
    assert len(receiver.requests()) > len({h["Idempotency-Key"] for h, _ in receiver.requests()})


def test_at_once_means_before_the_commit_and_without_numbers(receiver, tmp_path):
    grave = tmp_path / "dead.jsonl"
    grave.write_text("from before\n")
    store = MemoryStore()
    host = host_of(store, [WebhookSink(receiver.url, at_once=True, dead_letter=grave)])
    host.open()
    host.poll(10)
    assert store.latest(0) is None
    ((headers, records),) = receiver.requests()
    assert {record["kind"] for record in records} == {"predicted", "scored", "meta_updated"}
    assert "record" not in records[0]
    assert "Streammeta-First-Record" not in headers
    host.drop()
    assert grave.read_text() == "from before\n"


def test_a_receiver_that_is_not_there_is_said_before_anything_starts(tmp_path):
    nobody = WebhookSink(f"http://127.0.0.1:{servers.free_port()}/")
    with pytest.raises(SinkError, match="cannot be reached"):
        nobody.check()
    with pytest.raises(UsageError, match="url is 'host/path'"):
        WebhookSink("host/path")
    path = tmp_path / "c.toml"
    path.write_text(
        '[source]\nscenario = "sea"\n[[sinks]]\nkind = "webhook"\nformat = "xml"\ntimeout = 0\n'
    )
    with pytest.raises(ConfigError) as fault:
        load_config(path, environment={})
    told = str(fault.value)
    assert "sinks.0.url: is missing, sink 'webhook' needs it" in told
    assert "sinks.0.format: input should be 'ndjson' or 'json' (got 'xml')" in told
    assert "sinks.0.timeout: input should be greater than 0" in told
