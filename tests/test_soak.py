"""Killed at random moments over every kind of source, by a judge who reads only what is outside;
and what the judge himself is worth."""

from __future__ import annotations

import gc
import json
import random
import shutil
import tracemalloc
from pathlib import Path

import judge
import pytest
import soak

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.metrics import Metrics
from streammeta.runtime import ShardHost, run_local
from streammeta.sinks import DeadLetterSink, JsonlSink
from streammeta.sources import FileSource, IterableSource
from streammeta.sources.wire import Records
from streammeta.store import LocalStore

CHEAP = {
    "task": "classification", "experts": ("networks", "persistence"), "hidden": (8,),
    "challengers": 2, "scouts": (8,), "partner": None, "memory": 8, "label_ttl": 20.0,
}  # fmt: skip


def cheap(**changes) -> ModelConfig:
    return ModelConfig.model_validate({**CHEAP, **changes})


# -- the judge ---------------------------------------------------------------------------------


def ran(folder: Path, lines: list[bytes]) -> Path:
    """What a real run leaves of these records."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")

    def make(snapshot):
        return Engine(cheap()) if snapshot is None else Engine.restore(cheap(), snapshot)

    host = ShardHost(
        FileSource(folder / "rows.jsonl"),
        make,
        LocalStore(folder / "checkpoints"),
        [
            JsonlSink(folder / "out.jsonl", ["predicted", "scored"]),
            DeadLetterSink(folder / "dead.jsonl"),
        ],
        commit_every=100,
    )
    host.open()
    run_local(host)
    return folder


LINES = soak.lines_of(400, seed=3)
LINES[200:200] = [b"no JSON 1", b"no JSON 2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return ran(tmp_path_factory.mktemp("judged") / "whole", LINES)


def verdict(folder: Path, whole: Path, lines: list[bytes] = LINES) -> list[str]:
    given = judge.Input.of(lines)
    return judge.faults(given, folder, judge.Commit.newest(whole / "checkpoints"))


def test_the_judge_finds_nothing_wrong_with_a_run_that_was_not_killed(whole):
    assert verdict(whole, whole) == []
    given = judge.Input.of(LINES)
    assert len(given.questions) > 300
    assert 250 < len(given.labels) < len(given.questions)
    assert given.bad >= 2


@pytest.mark.parametrize("kind", ["predicted", "scored"])
@pytest.mark.parametrize(("copies", "told"), [(0, "lost"), (2, "doubled")])
def test_the_judge_sees_one_record_that_is_lost_or_doubled(whole, tmp_path, kind, copies, told):
    folder = shutil.copytree(whole, tmp_path / "patched")
    lines = (folder / "out.jsonl").read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"q77"' in line and kind.encode() in line)
    lines[at] *= copies
    (folder / "out.jsonl").write_bytes(b"".join(lines))
    assert f"1 {kind} {told}, such as q77" in verdict(folder, whole)


@pytest.mark.parametrize(("copies", "labels"), [(0, -1), (2, 1)])
def test_the_judge_sees_one_event_that_was_learned_never_or_twice(whole, tmp_path, copies, labels):
    """In the state alone: the sinks are those of a run in which all was well."""
    at = next(i for i, line in enumerate(LINES) if b'"q77"' in line and b'"y"' in line)
    again = LINES[at].replace(b'"q77"', b'"once more"')
    odd = [*LINES[: at + 1], again, *LINES[at + 1 :]] if copies else LINES[:at] + LINES[at + 1 :]
    folder = ran(tmp_path / "odd", odd)
    for name in ("out.jsonl", "dead.jsonl"):
        shutil.copy(whole / name, folder / name)
    told = verdict(folder, whole)
    expected = len(judge.Input.of(LINES).labels)
    assert f"the state has learned {expected + labels} labels of {expected}" in told
    assert "the state is not that of the run that was not killed" in told


def test_the_judge_sees_a_wrong_truth_a_wrong_order_and_a_dead_letter_that_is_missing(
    whole, tmp_path
):
    folder = shutil.copytree(whole, tmp_path / "patched")
    lines = (folder / "out.jsonl").read_bytes().splitlines(keepends=True)
    first, second = [i for i, line in enumerate(lines) if b'"predicted"' in line[:30]][:2]
    lines[first], lines[second] = lines[second], lines[first]
    at = next(i for i, line in enumerate(lines) if b'"scored"' in line and b'"truth":1' in line)
    lines[at] = lines[at].replace(b'"truth":1', b'"truth":0')
    (folder / "out.jsonl").write_bytes(b"".join(lines))
    letters = (folder / "dead.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "dead.jsonl").write_bytes(b"".join(letters[1:]))
    told = "; ".join(verdict(folder, whole))
    assert "not in the order of the questions" in told
    assert "was scored with 0" in told
    assert "dead letters" in told


def test_the_judge_sees_answers_that_were_given_again_and_are_other_ones(tmp_path):
    (tmp_path / "answers").write_bytes(
        b'{"id":"a","p":1}\n{"id":"b","p":1}\n{"id":"b"{"id":"a","p":1}\n{"id":"b","p":2}\n'
    )
    assert judge.said_twice(tmp_path / "answers") == (1, ["b"])


def test_the_judge_reads_nothing_of_what_he_judges():
    text = Path(judge.__file__).read_text()
    assert "import streammeta" not in text
    assert "from streammeta" not in text


# -- kills -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lives() -> soak.Lives:
    return soak.Lives()


@pytest.fixture(scope="module")
def wholes(lives, tmp_path_factory):
    made: dict[bool, tuple[list[bytes], judge.Commit]] = {}

    def of(rows: bool) -> tuple[list[bytes], judge.Commit]:
        if rows not in made:
            lines = soak.lines_of(soak.EVENTS, soak.SEED, late=not rows)
            folder = tmp_path_factory.mktemp("wholes") / "whole"
            made[rows] = lines, soak.reference(folder, "csv" if rows else "jsonl", lines, lives)
        return made[rows]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", soak.FEEDS)
def test_killed_twice_at_random_every_event_is_learned_once(name, lives, wholes, tmp_path):
    """Two kills over each of ten kinds of source; ``make soak`` is the same with 200."""
    if name == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    lines, whole = wholes(name in ("csv", "parquet"))
    told = soak.story(name, tmp_path / "run", lines, whole, kills=2, seed=7, lives=lives)
    assert told.faults == []
    assert told.kills == 2


# -- memory ------------------------------------------------------------------------------------


def endless(rng: random.Random):
    """Rows with ever new ids, of which some have no label, some a late one; some are no rows."""
    records = Records("s")
    n = 0
    while True:
        for line in soak.lines_of(500, rng.randrange(2**30)):
            yield records.event(n, f"line {n}", line.replace(b'"q', b'"p%dq' % (n // 500)))
            n += 1


def test_what_is_held_does_not_grow_with_the_stream(tmp_path):
    """Python's own allocations, numpy's among them, after 2,000 events and after 8,000."""
    engine = Engine(cheap(max_pending=50))
    engine.state.ended.limit = 500
    metrics = Metrics("m", "classification")
    host = ShardHost(
        IterableSource(lambda: endless(random.Random(1)), "s"),
        lambda snapshot: engine,
        LocalStore(tmp_path / "c"),
        [JsonlSink(tmp_path / "out.jsonl")],
        commit_every=500,
        observer=metrics,
    )
    host.open()
    held, sizes = [], []
    tracemalloc.start()
    try:
        for _ in range(4):
            for _ in range(4):
                host.poll(500)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
            sizes.append((len(engine.state.ended), len(engine.snapshot().to_bytes())))
    finally:
        tracemalloc.stop()
    host.drop()
    assert held[3] - held[1] < 200_000, held  # one record a row would be over a megabyte
    assert sizes[0][0] == 500
    assert max(size for _, size in sizes[1:]) < 1.05 * sizes[1][1]


@pytest.mark.slow
def test_resident_memory_is_flat(tmp_path):
    """100,000 events of ``make soak``'s 2,000,000."""
    told = soak.long_run(100_000, seed=3)
    assert told["events"] == 100_000
    assert told["growth_mib"] < soak.FLAT_MIB


@pytest.mark.slow
def test_the_command_keeps_what_it_found(tmp_path, monkeypatch, capsys):
    keep = tmp_path / "soak.json"
    monkeypatch.setattr(
        "sys.argv",
        ["soak.py", "--kills", "1", "--events", "2500", "--sources", "csv", "--json", str(keep)],
    )
    assert soak.main() == 0
    assert "1 kills" in capsys.readouterr().out
    kept = json.loads(keep.read_text())
    assert (kept["kills"], kept["seed"], kept["memory"]) == (1, soak.SEED, [])
    assert kept["sources"][0]["name"] == "csv"
    assert kept["sources"][0]["faults"] == []
    assert kept["commit"]
    assert kept["finished"]


def test_the_newest_answer_is_seen_however_its_line_was_written(tmp_path):
    path = tmp_path / "answers.jsonl"
    answers = soak.Answers(path)
    assert answers.look() == -1
    with open(path, "a") as file:
        for part, row in (
            ('{"kind":"predicted","row":1}\n{"kind":', 1),
            ('"predicted",', 1),
            ('"row":2}\n', 2),
            ('{"kind":"scored","row":2}\n', 2),
        ):
            file.write(part)
            file.flush()
            assert answers.look() == row
