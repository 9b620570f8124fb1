"""Several detectors as one: any of them, a vote, and a warning for those that have none.

All are detectors themselves, and by name: ``any_of(adwin, hddm_a)``, ``vote(cusum, ewma, sprt)``,
``warned(adwin)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from drift.detector import WARN, Detector, Input, Status

WITHIN = 100  # rows for which a vote, or a warning, counts
_STABLE, _WARNING, _DRIFT = Status.STABLE, Status.WARNING, Status.DRIFT


class _Several:
    """What any of several detectors shares with a vote of them.

    Raises:
        ValueError: there is no detector.
    """

    __slots__ = ("members",)
    kind = ""

    def __init__(self, members: Sequence[Detector]) -> None:
        if not members:
            raise ValueError(f"{self.kind}: expected at least one detector")
        self.members = tuple(members)

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"{self.kind}({', '.join(member.name for member in self.members)})"

    @property
    def input(self) -> Input:
        """That of the pickiest member."""
        return "error" if any(member.input == "error" for member in self.members) else "real"

    @property
    def has_warning(self) -> bool:
        """Whether any member warns."""
        return any(member.has_warning for member in self.members)

    def reset(self) -> None:
        """Forget everything, as if just made."""
        for member in self.members:
            member.reset()

    def _at(self, level: float) -> list[Any]:
        """The members, each at ``level`` times the level that it has now.

        Raises:
            TypeError: a member's level cannot be chosen.
        """
        for member in self.members:
            if not (hasattr(member, "at") and hasattr(member, "level")):
                raise TypeError(f"{member.name!r} cannot be calibrated: it has no at(level)")
        return [member.at(level * member.level) for member in self.members]  # type: ignore[attr-defined]

    @property
    def level(self) -> float:
        """Times the levels that the members have."""
        return 1.0


class AnyOf(_Several):
    """An alarm when any member raises one; all start over then."""

    __slots__ = ()
    kind = "any_of"

    def update(self, value: float) -> Status:
        """Take the value of one row."""
        worst = max(member.update(value) for member in self.members)
        if worst is _DRIFT:
            self.reset()
        return worst

    def at(self, level: float) -> AnyOf:
        """The same with every member's level times ``level``."""
        return AnyOf(self._at(level))


class Vote(_Several):
    """An alarm when ``least`` members have raised one within ``WITHIN`` rows; all start over then.

    ``least``: half of them and one more, where it is not told. A warning when one member warns or
    has raised an alarm that still counts.

    Raises:
        ValueError: there is no detector, or fewer than ``least``.
    """

    __slots__ = ("_left", "least")
    kind = "vote"

    def __init__(self, members: Sequence[Detector], least: int | None = None) -> None:
        super().__init__(members)
        self.least = len(self.members) // 2 + 1 if least is None else least
        if not 1 <= self.least <= len(self.members):
            raise ValueError(
                f"vote: least is {self.least}; expected 1 to {len(self.members)}, the members"
            )
        self._left = [0] * len(self.members)

    @property
    def has_warning(self) -> bool:
        """One vote warns, where one is not enough."""
        return self.least > 1 or super().has_warning

    def update(self, value: float) -> Status:
        """Take the value of one row."""
        left, votes, worst = self._left, 0, _STABLE
        for index, member in enumerate(self.members):
            status = member.update(value)
            left[index] = WITHIN if status is _DRIFT else max(0, left[index] - 1)
            votes += left[index] > 0
            worst = max(worst, status)
        if votes >= self.least:
            self.reset()
            return _DRIFT
        return _WARNING if votes or worst is not _STABLE else _STABLE

    def reset(self) -> None:
        """Forget everything, as if just made."""
        super().reset()
        self._left = [0] * len(self.members)

    def at(self, level: float) -> Vote:
        """The same with every member's level times ``level``."""
        return Vote(self._at(level), self.least)


class Warned:
    """A detector with a warning level: its own alarm at ``WARN`` of its level, for ``WITHIN`` rows.

    Raises:
        ValueError: the detector's level cannot be chosen.
    """

    __slots__ = ("_inner", "_left", "_looser")
    has_warning: Literal[True] = True

    def __init__(self, inner: Any) -> None:
        if not (hasattr(inner, "at") and hasattr(inner, "level")):
            raise ValueError(f"warned: {inner.name!r} has no level that could be lower")
        self._inner: Any = inner
        self._looser: Any = inner.at(WARN * inner.level)
        self._left = 0

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"warned({self._inner.name})"

    @property
    def input(self) -> Input:
        """That of the detector."""
        found: Input = self._inner.input
        return found

    @property
    def level(self) -> float:
        """That of the detector."""
        return float(self._inner.level)

    def at(self, level: float) -> Warned:
        """The same at another level."""
        return Warned(self._inner.at(level))

    def update(self, value: float) -> Status:
        """Take the value of one row."""
        looser = self._looser.update(value)
        if self._inner.update(value) is _DRIFT:
            self.reset()
            return Status.DRIFT
        self._left = WITHIN if looser is _DRIFT else max(0, self._left - 1)
        return Status.WARNING if self._left else Status.STABLE

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._inner.reset()
        self._looser.reset()
        self._left = 0
