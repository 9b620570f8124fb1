"""The journal: what was appended can be read, whatever happened to the process or to the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from running_mean import RunningMean

from streammeta.errors import SourceError
from streammeta.runtime import ShardHost, run_local
from streammeta.sinks import ListSink
from streammeta.sources import journaled
from streammeta.sources.journal import MAGIC, Journal
from streammeta.sources.journaled import Inbox
from streammeta.sources.stdin import StdinSource
from streammeta.store import KEPT, MemoryStore
from streammeta.testing import read_all


@pytest.fixture
def journal(tmp_path):
    made = []

    def make(**options) -> Journal:
        made.append(Journal(tmp_path / "j", **{"fsync": "never", **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def record(i: int) -> bytes:
    return f"record {i} ".encode() * (i % 5 + 1)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


@settings(deadline=None, max_examples=150)
@example([("append", 4), ("read", 4), ("append", 1), ("forget", 4)])
@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "read", "reopen", "forget"]), st.integers(0, 12)),
        max_size=25,
    )
)
def test_whatever_is_done_to_it_a_journal_is_a_list_that_forgets(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("journal")
    make = lambda: Journal(folder, fsync="never", segment_bytes=100)  # noqa: E731
    journal, end, at = make(), 0, 0
    for what, n in steps:
        if what == "append":
            assert journal.append([record(i) for i in range(end, end + n)]) == end
            end += n
        elif what == "read":
            start = max(min(at, end - n), journal.first)
            assert journal.read(start, n) == [record(i) for i in range(start, min(start + n, end))]
        elif what == "reopen":
            journal.close()
            journal = make()
        else:
            at = min(at + n, end)
            journal.forget(at)
            assert journal.first <= at
        assert journal.end == end
    assert journal.read(journal.first, end + 1) == [record(i) for i in range(journal.first, end)]
    assert len(segments(folder)) <= end - at + 2
    journal.close()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 400), st.binary(max_size=30))
def test_a_torn_tail_is_cut_wherever_the_power_went(tmp_path_factory, at, rubbish):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder)
    sizes = []
    for i in range(12):
        journal.append([record(i)])
        sizes.append(segments(folder)[0].stat().st_size)
    journal.close()
    image = segments(folder)[0].read_bytes()
    # a page that was never written reads as zeros
    zeros = len(rubbish) >= 8 or at < len(MAGIC)
    torn = image[:at] + (b"\0" * len(rubbish) if zeros else rubbish)
    segments(folder)[0].write_bytes(torn)
    alike = next(
        (i for i, pair in enumerate(zip(image, torn, strict=False)) if pair[0] != pair[1]),
        min(len(image), len(torn)),
    )
    whole = sum(size <= alike for size in sizes)
    again = Journal(folder)
    assert again.end == whole
    assert again.read(0, 99) == [record(i) for i in range(whole)]
    here = again.end
    assert again.append([b"goes on"]) == here
    assert again.read(here, 9) == [b"goes on"]
    again.close()


def test_damage_in_the_middle_is_an_error_and_not_a_tail(journal, tmp_path):
    first = journal(segment_bytes=60)
    first.append([record(0), record(1), record(2)])
    first.append([record(3), record(4)])
    first.close()
    old, new = segments(tmp_path / "j")
    image = bytearray(new.read_bytes())
    image[len(MAGIC) + 10] ^= 1
    new.write_bytes(image)
    with pytest.raises(SourceError, match="record 3 at byte 21 does not fit its checksum"):
        journal()
    image[len(MAGIC) + 10] ^= 1
    new.write_bytes(image)
    data = old.read_bytes()
    old.write_bytes(data[:-3])
    with pytest.raises(SourceError, match="record 2 at byte"):
        journal()
    old.unlink()
    assert journal().first == 3
    with pytest.raises(SourceError, match="another process uses this journal"):
        journal()


def test_records_that_are_not_there_are_errors(journal):
    made = journal(segment_bytes=10)
    for i in range(5):
        made.append([record(i)])
    made.forget(3)
    assert (made.first, made.end) == (3, 5)
    for number in (2, 6):
        with pytest.raises(SourceError, match=f"record {number} is not in the journal, .* 3 to 4"):
            made.read(number, 1)
    assert made.read(5, 1) == []
    made.close()
    with pytest.raises(SourceError, match="is closed"):
        made.append([b"x"])


DIES = """
import os, signal, sys
from streammeta.sources.journal import Journal

journal = Journal(sys.argv[1], fsync="never")
for i in range(10**6):
    journal.append([f"{i}".encode()])
    print(i, flush=True)
"""


def test_what_append_has_returned_for_survives_kill_9(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", DIES, str(tmp_path / "j")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(200):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told = [199, *map(int, process.stdout.read().split())][-1]
    process.wait()
    process.stdout.close()
    journal = Journal(tmp_path / "j")
    assert journal.end >= told + 1
    assert journal.read(0, told + 1) == [f"{i}".encode() for i in range(told + 1)]
    journal.close()


def test_an_inbox_is_bounded_by_what_nobody_has_read(tmp_path):
    inbox = Inbox(tmp_path, queue=10, fsync="never")
    assert inbox.put([b"x"] * 8) == 0
    assert inbox.put([b"x"] * 3) is None
    assert inbox.room() == 2
    inbox.read(0, 5)
    assert inbox.put([b"x"] * 3) == 8
    assert inbox.journal.end == 11
    inbox.read(5, 6)
    assert inbox.put([b"x"] * 25) == 11  # longer than the queue, which is empty
    assert inbox.room() == 0
    inbox.close()


class Pipe:
    """The two ends of a pipe, as the shell lays one."""

    def __init__(self) -> None:
        read, self.write = os.pipe()
        self.read = os.fdopen(read, "rb")

    def send(self, text: str) -> None:
        os.write(self.write, text.encode())

    def end(self) -> None:
        os.close(self.write)


def rows(n: int, first: int = 0) -> str:
    return "".join(f'{{"a": {i}, "y": {i % 7}}}\n' for i in range(first, first + n))


def test_lines_of_a_pipe_outlive_the_process_and_the_stream_ends_with_it(tmp_path):
    pipe = Pipe()
    source = StdinSource(str(tmp_path), target="y", stream=pipe.read)
    pipe.send(rows(5) + "\n" + '{"a": 5, ')
    events, position = read_all(source, source.start(), 5)
    assert not source.finished(position)
    pipe.send('"y": 5}\nnot JSON')
    pipe.end()
    more, _ = read_all(source, position, 2)
    assert [e.id for e in more] == ["stdin:0:5", "stdin:0:6"]
    assert more[1].error[0] == "malformed"
    assert source.finished({"record": 7})
    source.close()
    later = StdinSource(str(tmp_path), target="y", stream=Path(os.devnull).open("rb"))  # noqa: SIM115
    assert read_all(later, {"record": 0}, 7)[0] == [*events, *more]
    later.close()
    later._stream.close()
    pipe.read.close()


def test_a_pipe_is_not_read_while_nobody_reads_the_journal(tmp_path):
    pipe = Pipe()
    source = StdinSource(str(tmp_path), target="y", queue=10, stream=pipe.read)
    os.set_blocking(pipe.write, False)
    sent = 0
    source.read(source.start(), 0)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            pipe.send(rows(100, sent))
            sent += 100
        except BlockingIOError:
            if source.status().lag >= 10:
                break
    lag = source.status().lag
    assert 10 <= lag <= 10 + 2 * 65536 // len(rows(1))
    assert sent > lag  # the rest waits in the pipe, and so would a producer
    whole = threading.Thread(target=pipe.end)
    whole.start()
    found = []
    position = source.start()
    while not source.finished(position):
        events, position = source.read(position, 256)
        found += events
    assert [e.x["a"] for e in found if e.error is None][:sent] == [float(i) for i in range(sent)]
    whole.join()
    source.close()
    pipe.read.close()


def test_the_journal_keeps_what_the_commits_on_disk_need_and_no_more(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    path.write_text(rows(100))

    monkeypatch.setattr(journaled, "Journal", partial(Journal, segment_bytes=50))
    source = StdinSource(str(tmp_path / "j"), target="y", stream=path.open("rb"))
    host = ShardHost(source, RunningMean, MemoryStore(), [ListSink()], commit_every=10)
    host.open()
    run_local(host)
    source._stream.close()
    kept = Journal(tmp_path / "j")
    oldest = 100 - (KEPT - 1) * 10
    assert oldest - 100 < kept.first <= oldest
    assert kept.read(oldest, 1)
    kept.close()
