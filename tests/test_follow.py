"""Files that grow, get renamed, copied and cut while they are read: every line once, in order."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammeta.config_file import load_config
from streammeta.errors import ConfigError, SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.follow import FollowedFile
from streammeta.testing import read_all


class Log:
    """A program that writes a log, and those who rotate it."""

    def __init__(self, folder: Path, name: str = "x.jsonl") -> None:
        self.path = folder / name
        self.written = 0
        self.clock = 1_700_000_000

    def write(self, n: int, end: str = "\n") -> None:
        if self.path.suffix == ".csv" and not self.path.exists():
            self.path.write_text("a,y\n")
        with self.path.open("a") as file:
            for i in range(self.written, self.written + n):
                file.write(self.line(i) + (end if i == self.written + n - 1 else "\n"))
        self.written += n
        self.tick()

    def line(self, i: int) -> str:
        return f"{i},{i % 7}" if self.path.suffix == ".csv" else json.dumps({"a": i, "y": i % 7})

    def append(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)
        self.tick()

    def tick(self) -> None:
        """Times of files are as far apart as those of a real rotation."""
        self.clock += 60
        os.utime(self.path, (self.clock, self.clock))

    def rename(self) -> None:
        self._shift()
        self.path.rename(self._old(1))

    def copy_and_cut(self) -> None:
        self._shift()
        shutil.copyfile(self.path, self._old(1))
        os.utime(self._old(1), (self.clock, self.clock))
        os.truncate(self.path, 0)
        self.tick()

    def _shift(self) -> None:
        for i in range(30, 0, -1):
            if self._old(i).exists():
                self._old(i).rename(self._old(i + 1))

    def _old(self, i: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{i}")


@pytest.fixture
def log(tmp_path) -> Log:
    return Log(tmp_path)


def numbers(events: list[Event]) -> list[float]:
    return [event.x["a"] for event in events]


def test_a_file_that_is_not_there_yet_is_waited_for_and_half_a_line_is_none(log):
    source = FollowedFile(log.path, target="y")
    events, position = source.read(source.start(), 9)
    assert (events, source.finished(position)) == ([], False)
    assert "there is no such file yet" in source.status().fault
    log.write(2)
    log.append('{"a": 2, ')
    events, position = read_all(source, position, 2)
    assert numbers(events) == [0, 1]
    assert source.status().fault == ""
    log.append('"y": 2}\n\n[1]\n')
    events, position = read_all(source, position, 2)
    assert events[0] == Event("x.jsonl:0:2", {"a": 2.0}, 2)
    assert events[1].error == ("malformed", "x.jsonl line 5: list, expected an object")
    source.close()


def test_a_renamed_file_is_read_to_its_end_and_then_its_successor(log):
    source = FollowedFile(log.path, target="y")
    log.write(5)
    _, position = read_all(source, source.start(), 5)
    log.write(3, end="")  # the last line lacks its end
    log.rename()
    assert numbers(read_all(source, position, 2)[0]) == [5, 6]  # it may still be written to
    log.write(4)
    assert numbers(read_all(source, position, 7)[0]) == [5, 6, 7, 8, 9, 10, 11]
    source.close()
    later = FollowedFile(log.path, target="y")
    events, _ = read_all(later, position, 7)
    assert numbers(events) == [5, 6, 7, 8, 9, 10, 11]
    assert [e.id for e in events] == [f"x.jsonl:0:{i}" for i in range(5, 12)]
    later.close()


def test_csv_files_may_change_their_columns_when_they_are_rotated(tmp_path):
    log = Log(tmp_path, "x.csv")
    log.write(2)
    source = FollowedFile(log.path, target="y")
    log.rename()
    log.path.write_text('y;b;a\nspam;"1;2";7\n1;2\n')
    log.tick()
    first = {"inode": log._old(1).stat().st_ino, "head": [0, ""], "offset": 0, "line": 0, "row": 0}
    events, _ = source.read(first, 9)
    assert numbers(events[:2]) == [0, 1]
    assert (events[2].x, events[2].y) == ({"b": "1;2", "a": 7}, "spam")
    assert events[-1].error == ("malformed", "x.csv line 3: 2 fields, expected 3 like the header")
    source.close()


def test_a_file_that_is_only_cut_is_read_anew_unless_lines_may_be_lost(log):
    source = FollowedFile(log.path, target="y")
    log.write(5)
    _, position = read_all(source, source.start(), 5)
    os.truncate(log.path, 0)
    log.write(2)
    assert numbers(read_all(source, position, 2)[0]) == [5, 6]
    source.close()
    log.path.write_text("")
    for on_gap, rest in (("earliest", [7, 8]), ("latest", [])):
        goes_on = FollowedFile(log.path, target="y", on_gap=on_gap)
        log.path.write_text(log.line(7) + "\n" + log.line(8) + "\n")
        assert numbers(read_all(goes_on, position, len(rest))[0]) == rest
        assert goes_on.status().gaps == 1
        goes_on.close()
    fails = FollowedFile(log.path, target="y")
    with pytest.raises(SourceError, match=r"the file of the last commit is gone, .*on_gap = \"ear"):
        fails.read(position, 1)
    fails.close()


def test_a_deleted_file_is_read_to_its_end_while_it_is_held_open(log):
    source = FollowedFile(log.path, target="y")
    log.write(5)
    _, position = source.read(source.start(), 2)
    log.path.unlink()
    log.write(2)
    assert numbers(read_all(source, position, 5)[0]) == [2, 3, 4, 5, 6]
    source.close()


def test_begin_latest_is_the_end_at_the_first_read(log):
    log.write(5)
    source = FollowedFile(log.path, target="y", begin="latest")
    assert source.read(source.start(), 9)[0] == []
    log.write(2)
    assert numbers(read_all(source, source.start(), 2)[0]) == [5, 6]
    source.close()


def test_a_line_longer_than_a_block_is_one_line(log):
    log.append(json.dumps({"a": 0, "s": "x" * 200_000, "y": 1}) + "\n")
    log.written = 1
    log.write(3)
    source = FollowedFile(log.path, target="y")
    assert numbers(read_all(source, source.start(), 4)[0]) == [0, 1, 2, 3]
    source.close()


@settings(deadline=None, max_examples=80)
@given(
    kind=st.sampled_from(["x.jsonl", "x.csv"]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["write", "write", "read", "rename", "copy and cut", "resume"]),
            st.integers(1, 30),
        ),
        max_size=30,
    ),
)
def test_whatever_is_done_to_the_log_every_line_is_read_once_and_in_order(
    tmp_path_factory, kind, steps
):
    log = Log(tmp_path_factory.mktemp("log"), kind)
    source = FollowedFile(log.path, target="y")
    log.write(1)
    found, position = source.read(source.start(), 1)
    for what, n in [*steps, ("write", 1)]:
        if what == "write":
            log.write(n)
        elif what == "read":
            events, position = source.read(position, n)
            found += events
        elif what == "resume":
            source.close()
            source = FollowedFile(log.path, target="y")
            position = json.loads(json.dumps(position))
        elif log.path.exists() and log.path.stat().st_size > 20:
            log.rename() if what == "rename" else log.copy_and_cut()
            if kind == "x.csv" and what == "copy and cut":
                log.append("a,y\n")
            log.write(1)
    events, _ = read_all(source, position, log.written - len(found))
    assert numbers([*found, *events]) == list(range(log.written))
    assert [e.id for e in [*found, *events]] == [f"{kind}:0:{i}" for i in range(log.written)]
    source.close()


def test_follow_in_a_config(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[source]\npath = "x.jsonl"\nfollow = true\non_gap = "latest"\n')
    assert load_config(path, environment={}).config.source.plugged == "follow"
    for old, new, told in [
        ('"latest"', '"newest"', "c.toml:4: source.on_gap: input should be 'fail', 'earliest'"),
        ('path = "x.jsonl"', "", "source.path: is missing, source 'follow' needs it"),
        ("follow = true", "follow = true\nhorizon = 3", "source 'follow' takes no 'horizon'"),
        ("follow = true", "follow = true\nkind = 'redis'", "'follow' is for files, with 'path'"),
    ]:
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(path.read_text().replace(old, new))
        with pytest.raises(ConfigError) as fault:
            load_config(wrong, environment={})
        assert told in str(fault.value).replace(str(wrong), "c.toml")
    with pytest.raises(UsageError, match=r"has one of \.csv, "):
        FollowedFile("x.parquet")
