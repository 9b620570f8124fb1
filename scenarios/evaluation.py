"""Judge models on a table of rows: choose the task, run each model once, keep the results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from scenarios.models import build, require_engine
from scenarios.prequential import Model, Progress, Result, Watch, events_of, prequential
from streammeta.compiling import learn_a_change
from streammeta.engine import Engine
from streammeta.errors import SinkError, UsageError
from streammeta.meta.initial import write_initial
from streammeta.sources import FileSource, decide_task

DEFAULT_MODELS = ("streammeta", "no_change")


@dataclass(frozen=True, slots=True)
class Question:
    """What ``evaluate`` was asked; the fields are the flags of the command."""

    data: Path
    target: str | None
    task: str = "auto"
    models: tuple[str, ...] = DEFAULT_MODELS
    horizon: int = 0
    time: str | None = None
    key: str | None = None
    id: str | None = None
    ignore: tuple[str, ...] = ()
    chunk: int = 1
    label_delay: int = 0
    rows: int | None = None
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    save_init: Path | None = None

    def source(self) -> FileSource:
        """The file as a stream, from its first row."""
        return FileSource(
            self.data,
            target=self.target,
            time=self.time,
            key=self.key,
            id=self.id,
            ignore=self.ignore,
            horizon=self.horizon,
            label_delay=self.label_delay,
            rows=self.rows,
        )


def choose_task(question: Question) -> tuple[str, str]:
    """The task and why; opens the file and checks every column that was named.

    Raises:
        UsageError: a column is not in the file, or the target has no values.
        SourceError: the file cannot be read.
    """
    labels = question.source().sniff().targets
    if question.task == "auto":
        return decide_task(labels)
    words = [label for label in labels if isinstance(label, str)]
    if question.task == "regression" and words:
        raise UsageError(
            f"--task regression, but target {question.target!r} holds texts such as {words[0]!r}"
        )
    return question.task, "as asked"


def evaluate(
    question: Question,
    task: str,
    progress: Callable[[str], Progress | None] | None = None,
    watch: Watch | None = None,
) -> Iterator[Result]:
    """One result for each model, in their order; every model reads the same rows anew.

    ``watch`` sees what the first model says, as in ``prequential``. The code of an ``Engine``
    is loaded before it is timed: another one like it learns a change and is forgotten.
    With ``save_init`` the meta-parameters of the default model go to that file when it is done.

    Raises:
        UsageError: a model cannot be built, or there is none whose meta-parameters could be
            saved; known before the first one runs.
        SinkError: the meta-parameters cannot be written; known before, where it can be.
    """
    if question.save_init is not None:
        _require_initial(question.save_init, question.models)
    given: dict[str, Any] = {"task": task, "seed": question.seed, "chunk": question.chunk}
    models = [build(name, **given, overrides=question.overrides) for name in question.models]
    require_engine(models, question.overrides)
    for name, model in zip(question.models, models, strict=True):
        if isinstance(model, Engine):
            _load(model, task)
        source = question.source()
        try:
            yield prequential(
                model,
                events_of(source),
                task=task,
                chunk=question.chunk,
                name=name,
                seed=question.seed,
                progress=progress(name) if progress else None,
                watch=watch if model is models[0] else None,
            )
        finally:
            source.close()
        if question.save_init is not None and name == DEFAULT_MODELS[0]:
            _save_initial(question.save_init, model)


def _load(model: Engine, task: str) -> None:
    """The code that ``model`` calls; what fits the columns of its table only is left out: given
    meta-parameters, and all of a model with a family of somebody's own."""
    if not any(":" in name for name in model.config.families):
        learn_a_change(Engine(model.config.model_copy(update={"init": None})), task)


def _require_initial(path: Path, models: Sequence[str]) -> None:
    if DEFAULT_MODELS[0] not in models:
        raise UsageError(
            f"--save-init saves what {DEFAULT_MODELS[0]!r} has learned, which is not among the "
            f"models: {', '.join(models)}"
        )
    if path.is_dir():
        raise SinkError(f"cannot write {path}: it is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SinkError(f"cannot write {path}: no permission")


def _save_initial(path: Path, model: Model) -> None:
    assert isinstance(model, Engine)  # that is what the default model is
    if not model.learned:
        raise UsageError(f"nothing to save in {path}: no row could be learned")
    try:
        write_initial(path, model.learned)
    except (OSError, SafetensorError) as fault:
        raise SinkError(f"cannot write {path}: {fault}") from fault
