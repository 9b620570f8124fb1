"""Peers answer before they learn, on the same rows as everybody, and are scored here."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drift import evaluate
from scenarios import peers
from scenarios.models import build
from scenarios.peers.bridge import Table, fill_forward, judged
from scenarios.prequential import Result, prequential
from scenarios.scenario import Card, Scenario
from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value
from streammeta.registry import components
from streammeta.sources.labels import delayed

REAL = peers.missing("capymoa.arf")
needs_capymoa = pytest.mark.skipif(bool(REAL), reason=REAL)

# The newest label of the row's first column, and a log of who was called with what.
STAND_IN = """
import json, os, sys

class Newest:
    def __init__(self, job):
        assert not {"streammeta", "scenarios"} & set(sys.modules)
        assert job["seed"] == 7
        self.job, self.newest, self.calls = job, None, []
        self.log = os.environ.get("CALLS")
    def predict(self, x):
        self.calls.append("predict")
        shares = None
        if self.job["task"] == "classification" and self.newest is not None:
            shares = [float(i == self.newest) for i in range(len(self.job["classes"]))]
        return self.newest, shares
    def learn(self, x, y):
        self.calls.append("learn")
        self.newest = y
    def versions(self):
        if self.log:
            open(self.log, "w").write(json.dumps(self.calls))
        return {"newest": "1.0"}

class Broken(Newest):
    def learn(self, x, y):
        raise RuntimeError("no more memory over here")
"""


class Rows(Scenario):
    """A scenario of given rows."""

    def __init__(
        self,
        rows: list[tuple[dict[str, Value], Label]],
        task: str = "classification",
        late: int = 0,
        score_from: int = 0,
    ) -> None:
        self.seed = 0
        self.rows = rows
        self.late = late
        self.card = Card("r", task, len(rows), (), "", "", "", len(rows), score_from=score_from)

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        return iter(self.rows)

    def events(self) -> Iterator[Event]:
        events = super().events()
        return delayed(events, self.late) if self.late else events


def mixed_rows(n: int, task: str, seed: int = 0) -> list[tuple[dict[str, Value], Label]]:
    """Numbers, words, gaps, a column that comes late; a label that follows them, with noise."""
    draw = random.Random(seed)
    rows: list[tuple[dict[str, Value], Label]] = []
    for i in range(n):
        x: dict[str, Value] = {"a": draw.random(), "w": draw.choice("pqr"), "odd, {name}": i % 3}
        if i % 9 == 0:
            x["a"] = None
        if i > n // 2:
            x["new"] = draw.random() > 0.5
        level = (x["a"] or 0.0) + (x["w"] == "p")  # type: ignore[operator]
        rows.append((x, float(level) if task == "regression" else "low" if level < 0.5 else "high"))
    return rows


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    (tmp_path / "standin.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.json"))

    def run(stream: Scenario, who: str = "Newest", **more: Any) -> Result:
        learner = {"learner": f"standin:{who}"}
        given = {"name": "peer", "seed": 7, "rows": None, "progress": None, **more}
        return judged(Path(sys.executable), learner, stream, **given)

    return run


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_loop_over_there_gives_what_the_same_learner_gives_here(
    stand_in: Callable[..., Result], task: str, tmp_path: Path
) -> None:
    stream = Rows(mixed_rows(120, task), task, score_from=20)
    peer = stand_in(stream)
    ours = prequential(build("no_change", task=task), stream.events(), score_from=20)
    assert peer.predictions == ours.predictions
    assert peer.losses == ours.losses
    assert peer.rows == ours.rows
    assert peer.metric[peer.scores.main] == ours.metric[ours.scores.main]
    assert (peer.model, peer.seed, peer.chunk, peer.events) == ("peer", 7, 1, 120)
    assert peer.note == "newest 1.0"
    assert peer.peak_rss_mb > 5
    assert 0 < peer.latency.p50 <= peer.latency.max
    calls = json.loads((tmp_path / "calls.json").read_text())
    assert calls == ["predict", "learn"] * 120, "every row is answered first and learned then"


def test_only_the_first_rows_leave_where_a_cap_says_so(stand_in: Callable[..., Result]) -> None:
    told: list[int] = []
    stream = Rows(mixed_rows(50, "classification"))
    result = stand_in(stream, rows=30, progress=lambda rows, scores, drifts: told.append(rows))
    assert result.scores.n == result.events == 30


def test_rows_that_every_baseline_refuses_are_not_shown_to_a_peer(
    stand_in: Callable[..., Result],
) -> None:
    rows = mixed_rows(40, "regression")
    rows[5] = ({"a": 1e300}, 1.0)
    rows[6] = ({"a": 1.0}, float("nan"))
    stream = Rows(rows, "regression")
    peer = stand_in(stream)
    ours = prequential(build("no_change", task="regression"), stream.events())
    assert (peer.rejected, peer.scores.n) == (ours.rejected, ours.scores.n) == (2, 38)
    assert peer.losses == ours.losses


def test_what_leaves_is_a_header_and_numbers(tmp_path: Path) -> None:
    rows: list[tuple[dict[str, Value], Label]] = [
        ({"n": 1.5, "w": "b"}, "yes"),
        ({"n": None, "w": "a", "late": True}, "no"),
        ({"n": float("nan"), "w": None}, "yes"),
    ]
    table = Table("classification")
    assert table.read(Rows(rows).events(), None) == 3
    table.write(tmp_path, {"name": "x"})
    job = json.loads((tmp_path / "job.json").read_text())
    assert job["columns"] == {"n": None, "w": ["b", "a"], "late": None}
    assert (job["classes"], job["task"]) == (["yes", "no"], "classification")
    stream = np.load(tmp_path / "stream.npz")
    nan = np.nan
    np.testing.assert_equal(stream["x"], [[1.5, 0.0, nan], [nan, 1.0, 1.0], [nan, nan, nan]])
    assert stream["y"].tolist() == [0, 1, 0]


def test_a_gap_is_filled_from_the_past_alone() -> None:
    nan = np.nan
    x = np.array([[nan, 1.0], [2.0, nan], [nan, nan], [3.0, 4.0]])
    fill_forward(x)
    assert x.tolist() == [[0.0, 1.0], [2.0, 1.0], [2.0, 1.0], [3.0, 4.0]]


def test_late_labels_are_refused(stand_in: Callable[..., Result]) -> None:
    with pytest.raises(UsageError, match=r"the label of row 0 .* without label delay"):
        stand_in(Rows(mixed_rows(20, "classification"), late=3))


def test_a_peer_that_fails_is_quoted(stand_in: Callable[..., Result]) -> None:
    with pytest.raises(UsageError, match=r"peer failed over there .*no more memory over here"):
        stand_in(Rows(mixed_rows(20, "classification")), "Broken")


def test_a_missing_environment_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream = Rows(mixed_rows(5, "classification"))
    monkeypatch.setenv("STREAMMETA_PEERS", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere is no Python: run `make peers`"):
        peers.run("capymoa.arf", stream)
    monkeypatch.setenv("STREAMMETA_PEERS", sys.executable)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="install a Java runtime"):
        peers.require("capymoa.arf")
    with pytest.raises(UsageError, match=r"did you mean capymoa\.arf"):
        peers.missing("capymoa.arff")
    with pytest.raises(UsageError, match=r"no form for classification; use .*capymoa\.samknn"):
        peers.run("capymoa.soknl", stream)


def test_the_registry_tells_of_every_peer_and_of_no_other() -> None:
    told = {n.removeprefix("capymoa.") for n in components("models") if n.startswith("capymoa.")}
    assert told == set(peers.NAMES)


# -- the real ones -----------------------------------------------------------------------------

# one of each way to be asked: by class missing, by label, with gaps and with gaps filled
CASES = [
    ("levbag", "classification"),
    ("samknn", "classification"),
    ("soknl", "regression"),
    ("knn", "regression"),
]


@needs_capymoa
@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="each of them starts a JVM")
@pytest.mark.parametrize(("name", "task"), CASES)
def test_no_answer_of_capymoa_knows_its_own_label_or_a_later_one(name: str, task: str) -> None:
    rows, cut = mixed_rows(300, task), 240
    moved = rows[:cut] + [
        (x, y) for (x, _), (_, y) in zip(rows[cut:], mixed_rows(60, task, seed=9), strict=True)
    ]
    assert [y for _, y in rows[cut:]] != [y for _, y in moved[cut:]]
    own = next(i for i in range(cut, 300) if rows[i][1] != moved[i][1])
    one, two = (peers.run(f"capymoa.{name}", Rows(r, task), seed=1) for r in (rows, moved))
    assert one.scores.n == 300
    assert one.predictions[: own + 1] == two.predictions[: own + 1]
    assert one.predictions != two.predictions, "the future did not differ: no test"
    naive = prequential(build("majority", task=task), Rows(rows, task).events())
    if task == "classification":
        assert one.metric["accuracy"] > naive.metric["accuracy"]


# -- their evaluator of drift detectors --------------------------------------------------------

THEIR_EVALUATOR = """
import json, sys
import numpy as np
from capymoa.drift.eval_detector import EvaluateDriftDetector
for line in sys.stdin:
    told = json.loads(line)
    found = EvaluateDriftDetector(told["max_delay"]).calc_performance(
        np.array(told["drifts"]), np.array(told["alarms"], int), told["rows"])
    names = ("tp", "fp", "fn", "precision", "recall", "episode_recall", "f1", "mdt", "ndt", "far")
    print("found", json.dumps({name: float(getattr(found, name)) for name in names}), flush=True)
"""


def some_alarms(seed: int) -> dict[str, Any]:
    """Drifts whose windows do not overlap, some of them gradual, and alarms anywhere."""
    rng = random.Random(seed)
    max_delay, drifts, row = rng.choice([20, 100, 400]), [], rng.randint(1, 300)
    for _ in range(rng.randint(1, 6)):
        end = row + rng.choice([0, 0, rng.randint(1, 150)])
        drifts.append((row, end))
        row = end + max_delay + rng.randint(1, 500)
    rows = row + rng.randint(0, 300)
    alarms = sorted(rng.sample(range(1, rows), rng.randint(1, 25)))
    return {"max_delay": max_delay, "drifts": drifts, "alarms": alarms, "rows": rows}


@needs_capymoa
def test_alarms_are_judged_as_capymoa_judges_them() -> None:
    lists = [some_alarms(seed) for seed in range(100)]
    done = subprocess.run(
        [str(peers.python()), "-c", THEIR_EVALUATOR],
        input="\n".join(map(json.dumps, lists)), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line[:6] == "found "]
    assert len(said) == 100
    for told, theirs in zip(lists, map(json.loads, said), strict=True):
        ours = evaluate(told["alarms"], told["drifts"], told["rows"], told["max_delay"])
        assert (ours.hits, ours.false_alarms, ours.missed) == (
            theirs["tp"],
            theirs["fp"],
            theirs["fn"],
        )
        pairs = {
            "precision": ours.precision,
            "recall": ours.recall,
            "episode_recall": ours.episode_recall,
            "f1": ours.f1,
            "far": ours.false_alarms_per_1000,
        }
        for name, value in pairs.items():
            assert value == pytest.approx(theirs[name]), name
        if ours.found:
            assert ours.mean_delay == pytest.approx(theirs["mdt"])
            assert ours.normalised_delay == pytest.approx(theirs["ndt"])
