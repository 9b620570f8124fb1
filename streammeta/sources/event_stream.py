"""The format ``text/event-stream`` (HTML Living Standard, 9.2.6), without any I/O."""

from __future__ import annotations

import re
from typing import NamedTuple

SLACK = 64  # bytes that a line may have besides its data: the name of the field
_ENDS = re.compile(rb"\r\n|\n|\r")


class Message(NamedTuple):
    """One dispatched event: its own id, its type, its data, and how long the data was.

    Of data longer than the parser's bound only the beginning is there.
    """

    id: str | None
    event: str
    data: bytes
    size: int


class EventStream:
    """Bytes in, messages out; a message that is cut off by the end of the bytes is none.

    ``retry``: milliseconds to wait before connecting again, once the server has said so.

    >>> stream = EventStream(longest=1000)
    >>> stream.feed(b"id: 7\\ndata: {}\\n\\n: still here\\ndata: ha"), stream.feed(b"lf\\n")
    ([Message(id='7', event='message', data=b'{}', size=2)], [])

    Args:
        longest: bytes of data of one message that are kept.
    """

    def __init__(self, longest: int) -> None:
        self.retry: int | None = None
        self._longest = longest
        self._rest = b""
        self._cut = 0  # bytes of the line at hand that were too many
        self._after_cr = self._begun = False
        self._id: str | None
        self._event: str
        self._data: list[bytes]
        self._lines: int  # of data
        self._size: int  # of data, in bytes
        self._reset()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete."""
        if self._after_cr and data:
            data, self._after_cr = data.removeprefix(b"\n"), False
        if not data:
            return []
        *lines, rest = _ENDS.split(self._rest + data)
        self._after_cr = data.endswith(b"\r")
        found: list[Message] = []
        for line in lines:
            if not self._begun:
                line, self._begun = line.removeprefix(b"\xef\xbb\xbf"), True
            self._line(line, found)
            self._cut = 0
        self._rest = rest[: self._longest + SLACK]
        self._cut += len(rest) - len(self._rest)
        return found

    def _line(self, line: bytes, found: list[Message]) -> None:
        if not line:
            if self._lines:
                data = b"\n".join(self._data)[: self._longest]
                size = self._size + self._lines - 1
                found.append(Message(self._id, self._event or "message", data, size))
            self._reset()
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._lines += 1
            if self._size <= self._longest:
                self._data.append(value)
            self._size += len(value) + self._cut
        elif field == b"event":
            self._event = value.decode(errors="replace")
        elif field == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif field == b"retry" and value.isdigit() and len(value) < 10:
            self.retry = int(value)

    def _reset(self) -> None:
        self._id, self._event, self._data = None, "", []
        self._lines = self._size = 0
