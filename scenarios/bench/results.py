"""RESULTS.md, written from the books in ``results/`` and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scenarios.bench.book import Book, Record, read_book
from scenarios.bench.suite import Suite, Summary
from scenarios.bench.tables import standard
from streammeta.errors import SourceError
from streammeta.registry import components

HEAD = """# Results

Written by `streammeta bench --write-results RESULTS.md` from the JSON lines in `results/`, where
every run stands with its commit, versions, machine, seed and exact command. Nothing is tuned to a
stream: every model runs with its defaults unless its name says otherwise. Scores repeat bit by bit
on one machine; events per second depend on what else it does. Every row is predicted before its
label is learned; chunk 1 means that each label is learned before the next row is asked.
"""


def page(folder: Path) -> str:
    """The whole page, one section for each suite that has a book in ``folder``.

    Raises:
        SourceError: there is no book, or one cannot be read.
    """
    sections = [
        section(row.load(), read_book(path), folder)
        for name, row in components("suites").items()
        if (path := folder / f"{name}.jsonl").is_file()
    ]
    if not sections:
        raise SourceError(f"{folder} has no SUITE.jsonl: write one with bench SUITE --json")
    return "\n".join([HEAD, *sections])


def section(suite: Suite, book: Book, folder: Path) -> str:
    """Heading, what to know, where it comes from, tables and pictures."""
    parts = [f"## {suite.name}: {suite.summary}\n"]
    if suite.about:
        parts.append(f"{suite.about.strip()}\n")
    parts.append("\n".join(_origin(book)) + "\n")
    tables = (suite.summarise or standard)(book)
    for summary in tables:
        if not summary.detail:
            parts.append("\n".join(_markdown(summary)) + "\n")
    for summary in tables:
        if summary.detail:
            parts.append("\n".join(_folded(summary)) + "\n")
    picture = folder / f"{suite.name}.png"
    if picture.is_file():
        parts.append(f"![{suite.summary}]({folder.name}/{picture.name})\n")
    if suite.gates is not None:
        told = [
            f"- {'held' if gate.ok else '**missed**'}: {gate.text}" for gate in suite.gates(book)
        ]
        parts.append("\n".join(["What `--check` judges:", "", *told]) + "\n")
    return "\n".join(parts)


def _origin(book: Book) -> Iterator[str]:
    """Command, commit, versions and machine; more than one where runs were gathered."""
    for command in _unique(book.runs, lambda run: run.command):
        yield f"`{command}`"
    yield ""
    for commit in _unique(book.runs, lambda run: str(run.provenance["commit"])):
        told = next(r for r in book.runs if str(r.provenance["commit"]) == commit).provenance
        machine = told["machine"]
        versions = ", ".join(f"{name} {value}" for name, value in told["versions"].items())
        yield (
            f"Commit {commit}; {versions}; {machine['cores']} cores of {machine['cpu']}, "
            f"{machine['memory_gib']} GiB, {machine['system']}."
        )


def _unique(runs: Sequence[Record], of: Callable[[Record], str]) -> list[str]:
    return list(dict.fromkeys(of(run) for run in runs))


def _markdown(summary: Summary) -> Iterator[str]:
    yield f"**{summary.title}**"
    yield ""
    yield _line(summary.head)
    yield _line(["---", *["---:"] * (len(summary.head) - 1)])
    for row in summary.rows:
        yield _line(row)
    if summary.note:
        yield ""
        yield summary.note[:1].upper() + summary.note[1:] + "."


def _folded(summary: Summary) -> Iterator[str]:
    title, *rest = _markdown(summary)
    yield f"<details><summary>{title.strip('*')}</summary>"
    yield from rest
    yield ""
    yield "</details>"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
