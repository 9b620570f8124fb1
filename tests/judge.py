"""An independent judge of a run that was killed: it reads the input, what the sinks hold and the
last commit, and imports nothing of what it judges.

What must hold: every good question was predicted once, in order; every label that came in time was
scored once, with the truth of the input; every bad line is in the dead letters; the state counts as
many questions and labels as the input has, and is byte for byte that of a run that was not killed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

AGAIN = ("duplicate_id", "duplicate_label")  # what a source that was sent things twice may reject


@dataclass
class Input:
    """What a list of records asks for, by the records themselves."""

    questions: list[str] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    bad: int = 0

    @classmethod
    def of(cls, lines: list[bytes]) -> Input:
        told = cls()
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                told.bad += 1
                continue
            if "x" in record:
                told.questions.append(record["id"])
            if "y" in record:
                told.labels[record["id"]] = record["y"]
        return told


@dataclass
class Commit:
    """The newest commit of a folder, read by the description of its format alone."""

    events: int
    rows: int
    labels: int
    image: str  # SHA-256 of the model's state

    @classmethod
    def newest(cls, folder: Path) -> Commit:
        head, _, body = max(folder.rglob("*.commit")).read_bytes().partition(b"\n")
        header = json.loads(head)
        assert len(body) == header["length"], "the newest commit is cut short"
        assert sha256(body).hexdigest() == header["sha256"], "the newest commit is damaged"
        rest, _, image = body.partition(b"\n")
        size = int.from_bytes(image[:8], "little")
        info = json.loads(json.loads(image[8 : 8 + size])["__metadata__"]["info"])
        events = json.loads(rest)["events"]
        return cls(events, info["rows"], info["labels"], sha256(image).hexdigest())


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def faults(told: Input, folder: Path, whole: Commit, *, sent_twice: bool = False) -> list[str]:
    """What is wrong with what a run left in ``folder``; nothing, where all is well.

    ``sent_twice``: the sender could not know what had arrived, and sent some of it again.
    """
    found: list[str] = []
    out = records_of(folder / "out.jsonl")
    predicted = [r for r in out if r["kind"] == "predicted"]
    scored = [r for r in out if r["kind"] == "scored"]
    found += once("predicted", told.questions, [r["id"] for r in predicted])
    found += once("scored", list(told.labels), [r["id"] for r in scored])
    if [r["id"] for r in predicted] != told.questions:
        found.append("predictions are not in the order of the questions")
    if [r["row"] for r in predicted] != list(range(len(predicted))):
        found.append("the rows of the predictions are not 0, 1, 2, ...")
    for record in scored:
        if record["truth"] != told.labels.get(record["id"]):
            found.append(f"{record['id']} was scored with {record['truth']!r}")
    found += dead_letters(told, folder, sent_twice)
    found += of_the_state(told, Commit.newest(folder / "checkpoints"), whole)
    return found


def once(what: str, expected: list[str], ids: list[str]) -> list[str]:
    """Each of ``expected`` is among ``ids`` once, and nothing else is."""
    counts = Counter(ids)
    lost = [name for name in expected if name not in counts]
    doubled = [name for name, n in counts.items() if n > 1]
    strange = counts.keys() - set(expected)
    parts = (("lost", lost), ("doubled", doubled), ("never sent", sorted(strange)))
    return [f"{len(n)} {what} {how}, such as {n[0]}" for how, n in parts if n]


def dead_letters(told: Input, folder: Path, sent_twice: bool) -> list[str]:
    letters = records_of(folder / "dead.jsonl")
    bad = [r for r in letters if r["reason"] not in AGAIN]
    if sent_twice:
        return [] if len(bad) >= told.bad else [f"{told.bad - len(bad)} bad lines are nowhere"]
    if len(letters) != len(bad):
        return [f"{len(letters) - len(bad)} events were taken for repeated ones"]
    places = {r["detail"] for r in letters}
    if len(places) != len(letters) or len(letters) != told.bad:
        return [f"{len(letters)} dead letters, {len(places)} of them different, of {told.bad}"]
    return []


def of_the_state(told: Input, last: Commit, whole: Commit) -> list[str]:
    found = []
    if last.rows != len(told.questions):
        found.append(f"the state has seen {last.rows} questions of {len(told.questions)}")
    if last.labels != len(told.labels):
        found.append(f"the state has learned {last.labels} labels of {len(told.labels)}")
    if last.image != whole.image:
        found.append("the state is not that of the run that was not killed")
    return found


def said_twice(answers: Path) -> tuple[int, list[str]]:
    """Of answers that left at once, and were given again after a kill: how many were repeated,
    and those whose repetition says something else."""
    first: dict[str, bytes] = {}
    repeated, other = 0, []
    for line in answers.read_bytes().split(b"\n")[:-1]:
        if not line.endswith(b"}"):
            continue  # a kill in the middle of a line
        try:
            name = json.loads(line)["id"]
        except ValueError:
            continue  # the rest of such a line, and the next one behind it
        if name in first:
            repeated += 1
            if first[name] != line:
                other.append(name)
        else:
            first[name] = line
    return repeated, other
