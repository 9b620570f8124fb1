"""Configuration of a model, checked before anything starts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A section of the config file: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


#: The experts of the default model; between the first and the last one families by name.
EXPERTS = ("networks", "hats", "heads", "memory", "trees", "archive", "persistence")

#: Of values the last value may have a say after all others: after a surprise, and where repeating
#: it, or saying the mean, is better for long.
Correction = Literal["surprise", "guard"]
CORRECTIONS: tuple[Correction, ...] = ("surprise", "guard")


def _in_order(rows: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if rows is None else tuple(sorted(set(rows)))


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)}: named more than once")
    return names


def _none(name: object) -> object:
    """A config file has no other word for nothing."""
    return None if name == "none" else name


class OuterConfig(Section):
    """Options of the meta-learner's outer update; as it stands the papers' plain one."""

    each_step: float = Field(
        default=0.0, ge=0, description="weight of the loss after each earlier step"
    )
    modulation: float | None = Field(
        default=None,
        gt=0,
        description="lambda of (1 - exp(-lambda L)) L in the place of the loss L",
    )
    gated: bool = Field(
        default=False, description="weights move by their own inner rates, not by Adam's"
    )
    proximity: float = Field(
        default=0.0, ge=0, description="inner steps are drawn back by this share"
    )


class ModelConfig(Section):
    """The default model: a mixture of online experts fed by drift and by meta-learning.

    Cadence: a task is ``support`` rows and then ``query`` rows of one segment; one outer step
    over ``tasks_per_update`` tasks follows every ``meta_every`` labelled events, of which the first
    4,096 are the most instructive: later on 8 steps are taken for each drift, and else one after
    16 times as many events.
    """

    task: Literal["auto", "classification", "regression"] = "auto"
    seed: int = Field(0, ge=0)
    chunk: int = Field(1, ge=1, description="events answered with the state at the chunk's start")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu or cuda: where adaptation runs",
    )

    experts: Annotated[tuple[str, ...], AfterValidator(_distinct)] = Field(
        EXPERTS,
        min_length=1,
        description="who predicts beside challengers and scouts: networks, persistence, families "
        "by name, any River estimator as river.module:Class",
    )
    corrections: Annotated[tuple[Correction, ...], AfterValidator(_distinct)] = Field(
        CORRECTIONS,
        description="of an answer that is a value: after a surprise the last value has a say; a "
        "guard answers that or the mean where they are better for long",
    )
    hidden: tuple[int, ...] = Field((40, 40), description="units of each hidden layer")
    rates: tuple[float, ...] = Field((3e-3,), description="step sizes of the bank's networks")
    lags: int = Field(2, ge=0, le=8, description="arrived labels given as features")
    lags_read: Literal["earned", "always"] = Field(
        "earned", description="members read them while they tell something, or whatever they tell"
    )
    doubt: bool = Field(
        True, description="allow for classes that were given wrongly, by networks on hats"
    )

    learner: str = Field("meta_sgd", description="a meta-learner by name")
    partner: Annotated[str | None, BeforeValidator(_none)] = Field(
        "r2d2", description="a second meta-learner, with challengers and scouts of its own, or none"
    )
    inner_lr: float = Field(0.1, gt=0)
    inner_steps: int = Field(3, ge=1, le=50)
    outer_lr: float = Field(3e-3, gt=0)
    outer: OuterConfig = OuterConfig()
    tasks_per_update: int = Field(8, ge=1)
    meta_every: int = Field(
        32,
        ge=0,
        description="labelled events per outer step; rarer later on if nothing drifts; 0: none",
    )
    support: int = Field(16, ge=1, le=128, description="rows of a task that are adapted on")
    query: int = Field(16, ge=1, le=128, description="later rows that judge the adaptation")
    memory: int = Field(512, ge=3, le=10_000, description="tasks kept for replay")
    replay: bool = Field(True, description="outer steps and segment replay from memory")
    init: str | None = Field(None, description="file with meta-parameters to start from")

    detectors: tuple[str, ...] = Field((), description="names; empty = the default for the task")
    false_alarm_every: float = Field(
        100_000, ge=100, description="rows between two false alarms of the default detectors"
    )
    known_drifts: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...] | None, AfterValidator(_in_order)
    ] = Field(
        None,
        description="rows of the stream at which it is known to change: every key gets an alarm "
        "of the detector `known` with its first label from there on, and no detector runs beside "
        "it but those named in detectors",
    )
    on_drift: Literal["challenge", "reset", "ignore"] = "challenge"
    challengers: int = Field(
        4, ge=0, le=16, multiple_of=2, description="slots for adapted experts, two for each drift"
    )
    scouts: Annotated[
        tuple[Annotated[int, Field(ge=1, le=128)], ...], AfterValidator(_in_order)
    ] = Field(
        (8, 24), description="standing challengers, each adapted on so many of the newest rows"
    )
    scout_every: int = Field(
        4, ge=1, description="labelled rows from one time to the next, 8 times as many in calm"
    )
    challenger_init: Literal["meta", "random"] = "meta"
    chooser: str | None = Field(
        None, description="file with a policy that says at each drift whom to believe at first"
    )
    choice: Literal["soft", "hard"] = Field(
        "soft", description="whether the chooser's weights count, or its first choice alone"
    )
    freeze_at: int | None = Field(None, ge=0, description="stop all learning at this row")

    max_pending: int = Field(100_000, ge=1, description="questions that may wait for a label")
    label_ttl: float | None = Field(None, gt=0, description="event-time seconds a label may take")

    @property
    def families(self) -> tuple[str, ...]:
        """The experts that are families (``streammeta.experts.family``), by name."""
        return tuple(name for name in self.experts if name not in (EXPERTS[0], EXPERTS[-1]))

    @property
    def learners(self) -> tuple[str, ...]:
        """The learner and its partner, where that is another one."""
        own = (self.learner,)
        return own if self.partner in (None, self.learner) else (*own, str(self.partner))
