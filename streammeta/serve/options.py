"""The section ``[serve]`` of a run's config."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

from pydantic import Field, model_validator

from streammeta.config import Section


class ServeConfig(Section):
    """The HTTP API beside a stream, or alone."""

    host: str = "127.0.0.1"
    port: int = Field(8788, ge=0, le=65535, description="0 takes any free port")
    token: str | None = Field(
        None, min_length=1, description="requests need Authorization: Bearer TOKEN; use ${NAME}"
    )
    journal: str | None = Field(
        None, description="folder: what is sent is kept there before the answer; none: read only"
    )
    fsync: Literal["always", "never"] = Field(
        "always", description="never: what was answered survives the process, not a power cut"
    )
    queue: int = Field(10_000, ge=1, description="events in the journal that nobody has read")
    waiting: int = Field(256, ge=1, description="requests of a kind that wait at once, then 429")
    max_bytes: int = Field(1024 * 1024, ge=1, description="longest body, then 413")
    requests_per_second: float | None = Field(
        None, gt=0, description="of one address, a second's worth at once, then 429"
    )
    streams: int = Field(16, ge=1, description="readers of /v1/stream at once, then 429")

    @property
    def loopback(self) -> bool:
        """Whether nobody else's machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @model_validator(mode="after")
    def _guarded(self) -> ServeConfig:
        if not self.loopback and self.token is None:
            raise ValueError(
                f"host {self.host!r} can be reached from elsewhere: set 'token', such as "
                f"'${{API_TOKEN}}'"
            )
        return self
