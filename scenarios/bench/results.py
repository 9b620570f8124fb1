"""RESULTS.md, written from the books in ``results/`` and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scenarios.bench.book import Book, Record, read_book
from scenarios.bench.provenance import in_words
from scenarios.bench.suite import Suite, Summary
from scenarios.bench.tables import standard
from streammeta.errors import SourceError
from streammeta.registry import components

HEAD = """# Results

Written by `streammeta bench --write-results RESULTS.md` from the JSON lines in `results/`, where
every run stands with its commit, versions, machine, seed, settings and exact command; a section's
figures are those of the commit it names, and CHANGELOG.md says what has come since. Nothing is
tuned to a stream: every model runs with its defaults unless its name, or the text above a suite's
tables, says otherwise. Scores repeat bit by bit on one machine; events per second depend on what
else it does. Every row is predicted before its label is learned; chunk 1 means that each label is
learned before the next row is asked.
"""


def page(folder: Path) -> str:
    """The whole page, one section for each suite that has a book in ``folder``.

    Raises:
        SourceError: there is no book, one cannot be read, or one is of no suite that is known.
    """
    known = components("suites")
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem not in known:
            raise SourceError(
                f"{path}: no suite is called {path.stem!r}, so it cannot be shown; "
                f"known: {', '.join(known)}"
            )
    sections = [
        section(row.load(), read_book(path), folder)
        for name, row in known.items()
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
    if picture.is_file() and any(summary.lines for summary in tables):
        parts.append(f"![{suite.summary}]({folder.name}/{picture.name})\n")
    gates = suite.gates(book) if suite.gates is not None else []
    if gates:
        told = [f"- {'held' if gate.ok else '**missed**'}: {gate.text}" for gate in gates]
        parts.append("\n".join(["What `--check` judges:", "", *told]) + "\n")
    return "\n".join(parts)


def _origin(book: Book) -> Iterator[str]:
    """Commands, commits, versions and machines; several where runs were gathered."""
    yield "```sh"
    yield from _unique(book.runs, lambda run: run.command)
    yield "```"
    yield ""
    origins = _unique(book.runs, lambda run: in_words(run.provenance))
    yield from (f"- {told}" for told in origins) if len(origins) > 1 else origins


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
