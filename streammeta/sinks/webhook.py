"""Outputs posted to an HTTP address, in batches."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from random import Random
from typing import Annotated, Literal
from urllib.parse import urlsplit

import structlog
from pydantic import Field

from streammeta.errors import SinkError, UsageError
from streammeta.events import Output
from streammeta.sinks.base import Position
from streammeta.sinks.jsonl import JsonlSink, kept, to_line
from streammeta.sources.clock import Clock
from streammeta.sources.outage import Outage
from streammeta.sources.pulled import BUSY, header_lines

TOO_LARGE = 413
_ANSWER = 65_536  # bytes of an answer that are read, so that the connection can be used again
_log = structlog.get_logger("streammeta.sinks")


class _RefusedError(SinkError):
    """The receiver has looked at a batch and does not want it."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


class _BusyError(ConnectionError):
    """The receiver asks us to come again, perhaps after some seconds."""

    def __init__(self, told: str, after: float) -> None:
        super().__init__(told)
        self.after = after


class WebhookSink:
    """``POST url`` with batches of outputs, as JSON lines or as one JSON array.

    Outputs leave after the commit that covers them. Each has its number in this run's outputs,
    ``{"record": 17, "kind": "predicted", "id": ..., ...}``; the header ``Streammeta-First-Record``
    is that of the first one in the batch, and ``Idempotency-Key`` is the same whenever the same
    batch comes again: after an answer that got lost, or a crash. A receiver has everything once if
    it passes over a key that it knows, or stores by ``record``, or by ``kind`` and ``id``. A run
    that begins anew counts from 0 again; with ``announce`` it posts an empty batch first.

    With ``at_once`` outputs leave as they are made, without numbers: after a crash those since the
    last commit are made and sent again, with the same ids but perhaps in other batches.

    Any 2xx is an answer. 408, 425, 429, 5xx, silence and a broken connection are tried again, ever
    more rarely and not before ``Retry-After``, for ``give_up_after`` seconds: meanwhile the run
    waits. What is then still not taken, or is refused by any other answer, goes to the file
    ``dead_letter``, and the run goes on, trying once per batch until the receiver is back; without
    such a file the run ends. A batch refused with 413 is sent in halves first.

    Args:
        url: ``http://`` or ``https://``; redirects are not followed.
        kinds: names of the outputs to send; all by default.
        format: ``ndjson`` (``application/x-ndjson``) or ``json``, one array.
        batch: outputs in one request, at most.
        token: where given, sent as ``Authorization: Bearer TOKEN``.
        headers: further headers, as ``Name: value``.
        at_once: send before the commit.
        announce: tell with an empty batch, record 0, that a run begins anew.
        dead_letter: file for outputs that could not be delivered, as JSON lines.
        timeout: seconds that a request may take.
        give_up_after: seconds of failures after which a batch is given up.
        name: by which commits know the sink; the address by default.
        clock: time; the machine's own by default.
        random: for the jitter between tries.

    Raises:
        UsageError: the address or a header is none.
    """

    def __init__(
        self,
        url: str,
        kinds: Sequence[str] | None = None,
        *,
        format: Literal["ndjson", "json"] = "ndjson",  # noqa: A002 - the name of the field
        batch: Annotated[int, Field(ge=1)] = 500,
        token: str | None = None,
        headers: Sequence[str] = (),
        at_once: bool = False,
        announce: bool = False,
        dead_letter: str | Path | None = None,
        timeout: Annotated[float, Field(gt=0)] = 10.0,
        give_up_after: Annotated[float, Field(ge=0)] = 60.0,
        name: str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"webhook: url is {url!r}, expected http://... or https://...")
        self.durable = not at_once
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.name = name or shown
        self._parts, self._format, self._timeout = parts, format, timeout
        self._kinds, self._batch, self._announce = kept(kinds), batch, announce
        self._headers = {
            "Content-Type": "application/json" if format == "json" else "application/x-ndjson",
            **header_lines(headers, token),
        }
        self._what = f"webhook {shown}"
        self._outage = Outage(self._what, SinkError, give_up_after, clock, random)
        self._graves = None if dead_letter is None else JsonlSink(dead_letter)
        self._link: HTTPConnection | None = None
        self._records = 0

    def check(self) -> None:
        """Connect, and ask for nothing; a receiver that is not there is a fault at once."""
        try:
            with closing(self._new()) as link:
                link.connect()
        except OSError as error:
            raise SinkError(f"{self._what}: cannot be reached: {error}") from error
        if self._graves is not None:
            self._graves.check()

    def open(self, resume_at: Position | None) -> None:
        """Count from 0, or go on after the record that ``resume_at`` names."""
        self._records = 0 if resume_at is None else int(resume_at["records"])
        if self._graves is not None:
            buried = None if resume_at is None else resume_at.get("dead_letter")
            if buried is None and (resume_at is not None or not self.durable):
                size = self._graves.path.stat().st_size if self._graves.path.exists() else 0
                buried = {"bytes": size}
            self._graves.open(buried)
        if resume_at is None and self.durable and self._announce:
            self._send([], [], 0)

    def write(self, outputs: Sequence[Output]) -> int:
        """Post the outputs of the kinds that are kept; returns how many."""
        taken = [output for output in outputs if isinstance(output, self._kinds)]
        for i in range(0, len(taken), self._batch):
            part = taken[i : i + self._batch]
            first = self._records
            lines = [to_line(output).rstrip() for output in part]
            if self.durable:
                lines = [f'{{"record":{n},{line[1:]}' for n, line in enumerate(lines, first)]
            self._send(lines, part, first)
            self._records += len(part)
        return len(taken)

    def position(self) -> Position:
        """The number of records so far, and the length of the file of dead letters."""
        if not self.durable:
            return {}
        graves = {} if self._graves is None else {"dead_letter": self._graves.position()}
        return {"records": self._records, **graves}

    def flush(self) -> None:
        """Every write has been answered; what was buried is synced."""
        if self._graves is not None:
            self._graves.flush()

    def close(self) -> None:
        """Let go of the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._graves is not None:
            self._graves.close()

    def _send(self, lines: list[str], outputs: Sequence[Output], first: int) -> None:
        """One request, or the halves of it, or a burial."""
        if self._format == "json":
            body = f"[{','.join(lines)}]\n".encode()
        else:
            body = "".join(line + "\n" for line in lines).encode()
        headers = dict(self._headers)
        if self.durable:
            headers["Streammeta-First-Record"] = str(first)
        mark = f"{self.name}\n{first if self.durable else ''}\n".encode()
        headers["Idempotency-Key"] = sha256(mark + body).hexdigest()[:32]
        try:
            self._outage.insist(lambda: self._post(body, headers), (OSError, HTTPException))
        except _RefusedError as refused:
            if refused.status == TOO_LARGE and len(lines) > 1:
                half = len(lines) // 2
                self._send(lines[:half], outputs[:half], first)
                self._send(lines[half:], outputs[half:], first + half)
            else:
                self._bury(outputs, refused)
        except SinkError as fault:
            self._bury(outputs, fault)

    def _bury(self, outputs: Sequence[Output], fault: SinkError) -> None:
        if self._graves is None:
            raise fault
        _log.warning(f"{fault}; {len(outputs)} outputs go to {self._graves.path}")
        self._graves.write(outputs)

    def _post(self, body: bytes, headers: dict[str, str]) -> None:
        """One try.

        Raises:
            OSError, HTTPException: it may be tried again.
            SinkError: the receiver does not want it.
        """
        used = self._link is not None
        try:
            status, reason, after = self._exchange(body, headers)
        except ConnectionError:
            if not used:
                raise
            # a connection that was kept open may have been closed long ago: that is no failure
            status, reason, after = self._exchange(body, headers)
        told = f"answers {status} {reason}".strip()
        if status in BUSY or status >= 500:
            raise _BusyError(told, after)
        if not 200 <= status < 300:
            self._outage.over()
            raise _RefusedError(status, f"{self._what}: {told}")

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, float]:
        """Status, reason, and the seconds of ``Retry-After``."""
        link = self._link or self._new()
        self._link, kept_open = None, False
        parts = self._parts
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            link.request("POST", target, body, headers)
            with link.getresponse() as answer:
                answer.read(_ANSWER)
                kept_open = answer.isclosed() or not answer.read(1)
                after = answer.getheader("Retry-After", "")
        finally:
            if kept_open:
                self._link = link
            else:
                link.close()
        return answer.status, answer.reason, float(after) if after.isdecimal() else 0.0

    def _new(self) -> HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            return HTTPSConnection(host, port, timeout=self._timeout, context=context)
        return HTTPConnection(host, port, timeout=self._timeout)
