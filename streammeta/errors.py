"""Everything streammeta raises on purpose, and the exit code a command gives for it.

::

    StreamMetaError                exit
    |-- ConfigError                  78   a config file, ``--set`` or environment value is wrong
    |-- UsageError                    2   a command was called with something that cannot work
    |-- SourceError                  69   a source cannot be opened or read
    |-- SinkError                    69   a sink cannot be opened or written
    |-- StoreError                   70   a commit is corrupt or cannot be written
    |   `-- Fenced                   70   another owner has already committed this epoch
    `-- RejectedEvent                 -   one event is unusable: becomes a ``Rejected`` output

A fault in one event never raises out of the loop; it becomes a ``Rejected`` output.
"""

from __future__ import annotations


class StreamMetaError(Exception):
    """Base of every error that streammeta raises on purpose."""

    exit_code = 70


class ConfigError(StreamMetaError):
    """A configuration value is missing, unknown or out of range."""

    exit_code = 78


class UsageError(StreamMetaError):
    """A command or a call was given something that cannot work."""

    exit_code = 2


class SourceError(StreamMetaError):
    """A source cannot be opened or read."""

    exit_code = 69


class SinkError(StreamMetaError):
    """A sink cannot be opened or written."""

    exit_code = 69


class StoreError(StreamMetaError):
    """A commit is corrupt, of an unknown schema, or cannot be written."""


class Fenced(StoreError):  # noqa: N818 - the field's word for it
    """The epoch exists already: another owner holds this shard now."""


class RejectedEvent(StreamMetaError):  # noqa: N818 - it is an event, not a fault of the program
    """One event cannot be used.

    ``reason`` is a short stable word (a metric label: ``malformed``, ``wrong_type``,
    ``missing_target``, ``not_finite``, ``duplicate_id``, ``too_long``,
    ``too_many_classes``); ``detail`` is the line for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
