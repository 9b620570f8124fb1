"""A suite: models x streams x seeds, what is shown of them, and what it must keep to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streammeta.charts import Line

if TYPE_CHECKING:
    from scenarios.bench.book import Book
    from scenarios.bench.jobs import Outcome

QUICK_ROWS = 3_000
QUICK_SEEDS = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one stream with one seed; ``rows`` None means all of them.

    ``rows`` is asked of the scenario, whose drifts may move with it; ``cap`` breaks the same
    stream off after so many questions, for models too slow to see all of it. In a model's name
    ``@drift`` stands for the true drifts and ``@split`` for the warm-up of the stream's card.
    """

    model: str
    stream: str
    seed: int
    rows: int | None = None
    chunk: int = 1
    overrides: tuple[tuple[str, Any], ...] = ()  # fields of ModelConfig, for the default's variants
    label_delay: int = 0  # rows by which labels come later
    cap: int | None = None
    alone: bool = False  # in a fresh process, after a warm-up that is not measured
    protocol: str = ""  # a row of the registry that does the job, in the place of a stream's loop


@dataclass(frozen=True, slots=True)
class Summary:
    """One table of a summary, and perhaps a picture; ``note`` stands below the table.

    ``detail`` marks a table of one stream among many, which a page may fold away.

    Raises:
        ValueError: a row has more or fewer cells than ``head``.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    lines: Sequence[Line] = ()
    x_label: str = ""
    y_label: str = ""
    detail: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"{self.title}: {len(row)} cells, expected {len(self.head)}")


@dataclass(frozen=True, slots=True)
class Gate:
    """One claim that a suite must keep: ``text`` with its figure, and whether it holds."""

    text: str
    ok: bool


def always(stream: str) -> str:
    """Nothing is missing for ``stream``."""
    return ""


def nothing(stream: str, model: str) -> bool:
    """Every model runs on every stream."""
    return False


def anything(stream: str, model: str) -> bool:
    """Every model can run on every stream."""
    return True


@dataclass(frozen=True, slots=True)
class Suite:
    """A named set of jobs; ``minutes`` is the wall time with one process, roughly.

    ``about`` is what a reader of the results should know, in Markdown. ``unavailable`` says why a
    stream cannot be had on this machine, or nothing. ``caps`` maps the beginnings of names of
    slow models to the number of questions after which they stop; they run one seed.
    ``extra`` adds figures of the suite's own to the record of a run. ``summarise`` turns the book
    of all records into tables (without one: the leaderboards), ``gates`` into claims that
    ``bench --check`` holds the suite to; one that the book cannot answer, because a model was
    left out, does not hold. ``alone``: each job has a fresh process, so that its time and memory
    do not hang on the jobs before it. ``protocol``: the jobs are no streams but what the row of
    this name in the registry does. ``leaves_out`` says which of its models the suite does not run
    on a stream; models that are not its own run on all. ``fits`` says whether any model, named by
    whomever, can run on a stream at all.
    """

    name: str
    summary: str
    minutes: float
    streams: tuple[str, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    summarise: Callable[[Book], list[Summary]] | None = None
    rows: int | None = None  # of each stream; None: as many as it has
    quick_rows: int = QUICK_ROWS
    unavailable: Callable[[str], str] = field(default=always)
    overrides: tuple[tuple[str, Any], ...] = ()  # fields of ModelConfig, for the default's variants
    gates: Callable[[Book], list[Gate]] | None = None
    extra: Callable[[Outcome], dict[str, Any]] | None = None
    chunks: tuple[int, ...] = (1,)
    caps: tuple[tuple[str, int], ...] = ()
    about: str = ""
    alone: bool = False
    protocol: str = ""
    leaves_out: Callable[[str, str], bool] = field(default=nothing)
    fits: Callable[[str, str], bool] = field(default=anything)

    def jobs(
        self,
        *,
        models: Sequence[str] = (),
        seeds: int | None = None,
        quick: bool = False,
        rows: int | None = None,
    ) -> list[Job]:
        """The jobs of this suite, without streams that are not available here.

        ``rows`` of each stream; ``quick`` takes few of them and one seed.
        """
        numbers = self.seeds if seeds is None else tuple(range(seeds))
        if quick:
            numbers = numbers[:QUICK_SEEDS]
        rows = rows or (self.quick_rows if quick else self.rows)
        return [
            Job(
                model,
                stream,
                seed,
                rows,
                chunk,
                self.overrides,
                cap=self._cap(model),
                alone=self.alone,
                protocol=self.protocol,
            )
            for stream in self.streams
            if not self.unavailable(stream)
            for chunk in self.chunks
            for seed in numbers
            for model in (models or self.models)
            if not (self._cap(model) and seed != numbers[0])
            if self.fits(stream, model)
            if not (model in self.models and self.leaves_out(stream, model))
        ]

    def _cap(self, model: str) -> int | None:
        return next((cap for start, cap in self.caps if model.startswith(start)), None)
