"""Recorded data sets: read in any format, known by their checksum, and clear when absent."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenarios import data_sets, file_stream
from scenarios.data_sets import KNOWN, NOT_STATED, DataSet
from scenarios.file_stream import OPTIONS, Reading, parse
from scenarios.open_stream import VARIABLE, available
from scenarios.scenario import Scenario, scenario
from streammeta.errors import SourceError, UsageError

ROWS = [(0.5, "a", "x"), (1.5, "b", "y"), (2.5, "a", "x"), (3.5, "b", "x")]
TEXT = "size,kind,target\n" + "".join(f"{s},{k},{y}\n" for s, k, y in ROWS)
DRIFTING = DataSet(
    packed="",
    text=sha256(TEXT.encode()).hexdigest(),
    rows=4,
    source="a story",
    facts="another concept every two rows",
    licence="CC0",
    every=2,
    width=5,
    best=0.75,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the variable names, and no River data."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setenv("RIVER_DATA", str(tmp_path / "river"))
    return tmp_path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """``story`` is a known data set."""
    monkeypatch.setitem(KNOWN, "story", DRIFTING)


def write(path: Path) -> Path:
    """The four rows in the format of the file's suffix."""
    records = [{"size": s, "kind": k, "target": y} for s, k, y in ROWS]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        arrow = pytest.importorskip("pyarrow")
        parquet.write_table(arrow.Table.from_pylist(records), path)
    elif path.suffix == ".gz":
        text = lines if ".jsonl" in path.name else TEXT
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(lines if path.suffix == ".jsonl" else TEXT)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_gives_the_same_rows_by_name_and_by_path(folder: Path, suffix: str) -> None:
    path = write(folder / f"mine{suffix}")
    for name in ("open:mine", f"file:{path}@target"):
        stream = scenario(name)
        assert list(stream) == [({"size": s, "kind": k}, y) for s, k, y in ROWS]
        card = stream.card
        assert (card.task, card.rows, card.drifts) == ("classification", 4, ())
        assert card.checksum == sha256(path.read_bytes()).hexdigest()
        assert (card.licence, card.source) == (NOT_STATED, str(path))
        assert "drifts unknown" in card.description


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_known_file_has_a_full_card_without_being_read_to_its_end(
    folder: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / f"story{suffix}")
    monkeypatch.setattr(file_stream, "questions", None)  # counting would fail
    card = scenario("open:story").card
    assert (card.rows, card.default_rows) == (4, 4)
    assert card.drifts == ((2, 3),)
    assert (card.source, card.licence, card.best) == ("a story", "CC0", 0.75)
    assert card.ceiling == "accuracy 0.75 (label noise)"
    assert card.description == f"story{suffix}, in its own order; another concept every two rows"
    assert scenario("open:story", rows=2).card.drifts == ()


@pytest.mark.usefixtures("known")
def test_another_file_of_a_known_name_is_not_believed_and_told_in_the_card(folder: Path) -> None:
    (folder / "story.csv").write_text(TEXT + "9.5,b,x\n")
    card = scenario("open:story").card
    assert "CHECKSUM DIFFERS: this is not the known open:story" in card.description
    assert card.checksum[:12] in card.description
    assert (card.rows, card.drifts, card.best) == (5, (), None)
    assert (card.licence, card.ceiling) == (NOT_STATED, "unknown")


def test_whoever_replays_another_file_of_a_known_name_sees_it(tmp_path: Path) -> None:
    (tmp_path / "elec2.csv").write_text(TEXT)
    command = ["replay", "open:elec2", "--models", "no_change", "--json"]
    told = subprocess.run(
        [sys.executable, "-m", "streammeta.cli", *command],
        capture_output=True,
        text=True,
        env={**os.environ, VARIABLE: str(tmp_path)},
    )
    assert told.returncode == 0, told.stderr
    assert "CHECKSUM DIFFERS: this is not the known open:elec2" in told.stderr
    assert json.loads(told.stdout.splitlines()[0])["rows"] == 4


@pytest.mark.usefixtures("known")
def test_a_known_file_read_in_another_way_keeps_its_source_but_not_its_drifts(
    folder: Path,
) -> None:
    write(folder / "story.csv")
    stream = scenario("open:story@size?ignore=kind")
    assert (stream.card.task, stream.card.drifts, stream.card.best) == ("regression", (), None)
    assert (stream.card.source, stream.card.licence) == ("a story", "CC0")
    assert next(iter(stream)) == ({"target": "x"}, 0.5)


def test_rows_are_counted_once_until_the_file_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = file_stream.events_of
    monkeypatch.setattr(
        file_stream, "events_of", lambda source: reads.append(source) or real(source)
    )
    path = write(folder / "mine.csv")
    assert [scenario("open:mine").card.rows for _ in range(3)] == [4, 4, 4]
    assert len(reads) == 1
    path.write_text(TEXT + "9.5,b,x\n")
    assert scenario("open:mine").card.rows == 5
    assert scenario("open:mine", rows=3).card.rows == 3
    assert len(reads) == 3


def test_a_checksum_is_read_once_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    real = data_sets._digest
    monkeypatch.setattr(data_sets, "_digest", lambda file: digests.append(1) or real(file))
    path = write(tmp_path / "mine.csv.gz")
    first = {data_sets.sha256(path) for _ in range(3)}
    assert first == {sha256(path.read_bytes()).hexdigest()}
    assert data_sets.sha256(path, unpack=True) == DRIFTING.text
    assert len(digests) == 2
    path.write_bytes(b"\x1f\x8b broken")
    assert {data_sets.sha256(path)} != first
    with pytest.raises(SourceError, match="unreadable"):
        data_sets.sha256(path, unpack=True)
    with pytest.raises(SourceError, match="no such file"):
        data_sets.sha256(tmp_path / "none.csv")


def test_options_after_the_question_mark_say_which_column_is_what(tmp_path: Path) -> None:
    path = tmp_path / "prices @ noon.csv"
    path.write_text(
        "day,shop,note,close=,open\n"
        "2024-01-01,a,n,1.5,1\n"
        "2024-01-01,b,n,7.5,7\n"
        "2024-01-02,a,n,2.5,2\n"
        "2024-01-02,b,n,8.5,8\n"
    )
    place = str(path).replace("@", "%40")
    stream = scenario(f"file:{place}@close%3D?time=day&key=shop&ignore=note&horizon=1")
    asked = [e for e in stream.events() if e.x is not None]
    assert [e.key for e in asked] == ["a", "b", "a", "b"]
    assert asked[0].ts == datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    assert list(stream) == [
        ({"close=": 1.5, "open": 1.0}, 2.5),
        ({"close=": 7.5, "open": 7.0}, 8.5),
    ]
    assert (stream.card.task, stream.card.rows) == ("regression", 4)


def test_the_task_of_whole_numbers_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text("a,y\n1,0\n2,1\n3,1\n")
    assert scenario(f"file:{path}@y").card.task == "classification"
    assert scenario(f"file:{path}@y?task=regression").card.task == "regression"


def test_envelopes_need_no_target(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(
        '{"id": "1", "key": "k", "ts": 5, "x": {"a": 1}, "y": 2.5}\n{"id": "2", "x": {"a": 2}}\n'
    )
    stream = scenario(f"file:{path}")
    assert stream.card.rows == 2
    assert [(e.id, e.key, e.y) for e in stream.events()] == [("1", "k", 2.5), ("2", "", None)]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("", "expected PATH@TARGET"),
        ("@y", "expected PATH@TARGET"),
        ("a.csv@y?tiem=day", "did you mean time"),
        ("a.csv@y?w=1", f"known: {', '.join(OPTIONS)}"),
        ("a.csv@y?time=", "expected one value"),
        ("a.csv@y?key=a&key=b", "expected one value"),
        ("a.csv@y?horizon=soon", "expected a number of rows"),
        ("a.csv@y?task=ranking", "expected classification or regression"),
    ],
)
def test_a_name_that_cannot_be_read_says_where(argument: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scenario(f"file:{argument}")


def test_a_name_without_options_is_only_a_path_and_a_target() -> None:
    assert parse("a@b/c.csv@y") == ("a@b/c.csv", Reading(target="y"))
    assert parse("c.csv") == ("c.csv", Reading())


def test_what_is_wrong_with_a_file_or_a_column_is_said(folder: Path) -> None:
    path = write(folder / "mine.csv")
    with pytest.raises(UsageError, match=r"which column is the target\? .*columns: size, kind"):
        scenario(f"file:{path}")
    with pytest.raises(UsageError, match=r"'targt' is not in the file .did you mean 'target'"):
        scenario(f"file:{path}@targt")
    with pytest.raises(SourceError, match=r"no such file; the folder has mine.csv"):
        scenario(f"file:{folder / 'mime.csv'}@target")
    (folder / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="another target: open:other@COLUMN"):
        scenario("open:other")
    assert scenario("open:other@b").card.rows == 1


def test_absent_data_says_what_it_is_and_how_to_get_it(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"it has: no data file.*known from MIXED .Gama"):
        scenario("open:mixed")
    with pytest.raises(SourceError, match=r"datasets.Elec2\(\).download\(\)"):
        scenario("elec2")
    with pytest.raises(SourceError, match=r"datasets.Bikes\(\).download.*RIVER_DATA"):
        scenario("river:Bikes")
    with pytest.raises(SourceError, match=r"datasets.Insects\('gradual_balanced'\).download"):
        scenario("river:Insects@gradual_balanced")


def test_available_answers_without_building_anything(folder: Path) -> None:
    path = write(folder / "mine.csv")
    here = ["open:mine", "open:mine | delay(3)", f"file:{path}@target", "river:Phishing"]
    absent = ["open:none", "river:Bikes", "river:Yeast", "river:No", "file:none.csv@y", "elec2"]
    assert all(map(available, [*here, "sensors:200", "sine_switch"]))
    assert not any(map(available, absent))


BUNDLED = {
    "AirlinePassengers": ("regression", 144),
    "Bananas": ("classification", 5_300),
    "ChickWeights": ("regression", 578),
    "ImageSegments": ("classification", 2_310),
    "Phishing": ("classification", 1_250),
    "SP500Stocks": ("regression", 1_257),
    "Shuttle": ("classification", 49_097),
    "TrumpApproval": ("regression", 1_001),
    "WaterFlow": ("regression", 1_268),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_set_of_river_has_as_many_rows_as_its_card(name: str) -> None:
    stream = scenario(f"river:{name}")
    card = stream.card
    assert (card.task, card.rows) == BUNDLED[name]
    events = list(stream.events())
    assert len(events) == card.rows
    assert [(e.x, e.y) for e in events[:50]] == list(scenario(f"river:{name}", rows=50))
    values = {type(v) for e in events for v in (e.x or {}).values()}
    assert values <= {int, float, bool, str, type(None)}
    assert (len(card.checksum), card.drifts) == (64, ())
    assert "bundled with River" in card.source
    assert "\n" not in card.description


def test_a_licence_is_told_with_the_page_that_states_it_or_not_at_all() -> None:
    told = {name: scenario(f"river:{name}", rows=5).card.licence for name in BUNDLED}
    known = {name for name, licence in told.items() if licence != NOT_STATED}
    assert known == {"ImageSegments", "Phishing", "Shuttle"}
    assert told["Shuttle"] == "CC BY 4.0 (https://archive.ics.uci.edu/dataset/148)"
    assert scenario("sensor_fault", rows=5).card.licence == told["ImageSegments"]


@pytest.mark.parametrize("name", ["Yeast", "SolarFlare", "Music", "WebTraffic"])
def test_a_set_with_several_targets_is_refused_before_any_download(name: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"targets at once .multi-output"):
        scenario(f"river:{name}")


def test_a_variant_is_checked_by_name(folder: Path) -> None:
    with pytest.raises(UsageError, match="did you mean gradual_balanced"):
        scenario("river:Insects@gradual_balance")
    with pytest.raises(UsageError, match="Phishing has no variants"):
        scenario("river:Phishing@small")
    with pytest.raises(UsageError, match="no data set 'base'"):
        scenario("river:base")


def test_dates_become_event_time_and_stay_features() -> None:
    first = next(scenario("river:AirlinePassengers").events())
    month = datetime(1949, 1, 1, tzinfo=UTC).timestamp()
    assert (first.x, first.y, first.ts) == ({"month": month}, 112, month)
    assert [e.ts for e in scenario("river:Phishing", rows=3).events()] == [0.0, 1.0, 2.0]


@pytest.fixture
def downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """River believes any file in its folder to be a complete download."""
    from river.datasets import base

    monkeypatch.setattr(
        base.RemoteDataset, "is_downloaded", property(lambda self: self.path.exists())
    )
    return folder / "river"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_a_downloaded_variant_is_read_from_rivers_folder(downloaded: Path) -> None:
    cells = ",".join(str(n) for n in range(33))
    put(downloaded / "Insects" / "gradual_balanced.csv", f"{cells},ae-aegypti\n" * 3)
    stream = scenario("river:Insects@gradual_balanced", rows=3)
    assert (stream.card.default_rows, stream.card.task) == (24_150, "classification")
    assert stream.card.source.startswith("https://")
    assert [e.y for e in stream.events()] == ["ae-aegypti"] * 3


def test_recommendations_and_texts_work_as_they_are(downloaded: Path) -> None:
    head = "user\titem\ttimestamp\ttitle\trelease_date\tgenres\tage\tgender\trating\n"
    put(
        downloaded / "MovieLens100K" / "ml_100k.csv",
        head + "259\t255\t874731910\tA Film\t866764800\tcomedy\t21.0\tM\t4.0\n",
    )
    ((x, y),) = scenario("river:MovieLens100K", rows=1)
    assert (x["user"], x["title"], x["age"], y) == ("259", "A Film", 21.0, 4.0)
    put(downloaded / "SMSSpam" / "SMSSpamCollection", "spam\tWin now\nham\tSee you\n")
    assert next(iter(scenario("river:SMSSpam", rows=2))) == ({"body": "Win now\n"}, True)


def test_elec2_comes_from_the_folder_first_and_from_river_else(downloaded: Path) -> None:
    names = "date,day,period,nswprice,nswdemand,vicprice,vicdemand,transfer,class\n"
    put(downloaded / "Elec2" / "electricity.csv", names + "0,2,0,.1,.2,.3,.4,.5,UP\n")
    assert scenario("elec2", rows=1).card.name == "river:Elec2"
    (downloaded.parent / "elec2.csv").write_text("a,target\n1,0\n2,1\n")
    assert scenario("elec2").card.name == "open:elec2"


def real(name: str) -> Scenario:
    """The open stream ``name``, or a skip that says what is missing."""
    if not available(f"open:{name}"):
        pytest.skip(f"{VARIABLE} has no {name}")
    return scenario(f"open:{name}")


@pytest.mark.parametrize("name", KNOWN)
def test_the_files_at_hand_are_the_known_ones(name: str) -> None:
    card = real(name).card
    assert "CHECKSUM DIFFERS" not in card.description
    assert card.checksum in (KNOWN[name].packed, KNOWN[name].text)
    assert card.rows == KNOWN[name].rows


@pytest.mark.parametrize("name", ["weather", "etth1"])
def test_the_rows_that_a_card_states_are_the_rows_of_the_file(name: str) -> None:
    stream = real(name)
    assert sum(event.x is not None for event in stream.events()) == stream.card.rows


def plane(x: dict[str, Any]) -> bool:
    return bool(x["attrib1"] + x["attrib2"] <= 9.0)


def sine(x: dict[str, Any]) -> bool:
    return bool(x["y"] > np.sin(x["x"]))


def votes(x: dict[str, Any]) -> bool:
    wave = 0.5 + 0.3 * np.sin(3.0 * pi * x["x"])
    return bool((x["v"] == 1) + (x["w"] == 1) + (x["y"] < wave) >= 2)


CIRCLES = ((0.2, 0.5, 0.15), (0.4, 0.5, 0.2), (0.6, 0.5, 0.25), (0.8, 0.5, 0.3))


def circle(x: dict[str, Any]) -> bool:
    a, b, r = CIRCLES[0]
    return bool((x["x"] - a) ** 2 + (x["y"] - b) ** 2 <= r**2)


@pytest.mark.parametrize(
    ("name", "rule"), [("sine1", sine), ("mixed", votes), ("circles", circle), ("sea", plane)]
)
def test_the_drifts_of_a_known_file_are_where_its_card_has_them(name: str, rule: Any) -> None:
    stream = real(name)
    first = list(islice(stream, 45_000))
    yes = Counter(y for x, y in first[:5_000] if rule(x)).most_common(1)[0][0]
    agree = np.array([rule(x) == (y == yes) for x, y in first], float)
    usual = agree[:5_000].mean()
    assert usual == pytest.approx(stream.card.best, abs=0.015)
    around = np.abs(agree.reshape(-1, 500).mean(axis=1) - usual) > 0.2
    changes = [int(at) * 500 for at in np.flatnonzero(np.diff(around.astype(int), prepend=0))]
    told = [start for start, _ in stream.card.drifts if start < len(first)]
    assert len(changes) == len(told)
    assert all(abs(found - start) <= 500 for found, start in zip(changes, told, strict=True))


def test_a_known_file_with_one_byte_more_is_another_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder / "story.csv")
    monkeypatch.setitem(KNOWN, "story", replace(DRIFTING, text="", packed=data_sets.sha256(path)))
    assert scenario("open:story").card.drifts == ((2, 3),)
    path.write_text(TEXT + "\n")
    assert "CHECKSUM DIFFERS" in scenario("open:story").card.description
