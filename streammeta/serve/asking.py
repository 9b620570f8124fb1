"""Predictions for many requests at once."""

from __future__ import annotations

import asyncio

from streammeta.errors import RejectedEvent
from streammeta.experts.baselines import Answer
from streammeta.serve.inlet import QueueFull
from streammeta.serve.published import Published
from streammeta.twin import Question

Told = tuple[Answer, int]


class Desk:
    """Questions that arrive while the event loop is at one turn are answered in one call.

    Args:
        published: the copy that is asked.
        waiting: questions that may wait.
    """

    def __init__(self, published: Published, waiting: int) -> None:
        self._published, self._waiting = published, waiting
        self._asked: list[tuple[Question, asyncio.Future[Told]]] = []

    async def ask(self, question: Question) -> Told:
        """The answer, and how many questions of the stream the copy had seen.

        Raises:
            QueueFull: too many wait.
            RejectedEvent: a value cannot be used.
        """
        if len(self._asked) >= self._waiting:
            raise QueueFull(f"{self._waiting} questions wait")
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Told] = loop.create_future()
        self._asked.append((question, told))
        if len(self._asked) == 1:
            loop.call_soon(self._answer)
        return await told

    def _answer(self) -> None:
        asked, self._asked = self._asked, []
        try:
            answers, rows = self._published.answers([question for question, _ in asked])
        except Exception as fault:  # noqa: BLE001 - whoever asked is told, nobody else would be
            for _, told in asked:
                if not told.done():
                    told.set_exception(fault)
            return
        for (_, told), answer in zip(asked, answers, strict=True):
            if told.done():
                continue  # who asked is gone
            if isinstance(answer, RejectedEvent):
                told.set_exception(answer)
            else:
                told.set_result((answer, rows))
