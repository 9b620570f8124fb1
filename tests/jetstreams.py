"""A JetStream stream seen from the outside, with calls that wait for their answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
from nats.js.api import StreamConfig


class Streams:
    """Every call connects anew, so that the server may be killed in between."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _with(self, work) -> Any:
        async def run() -> Any:
            client = await nats.connect(self.url, connect_timeout=5)
            try:
                return await work(client.jetstream(timeout=10))
            finally:
                await client.close()

        return asyncio.run(run())

    def make(self, name: str, **limits: Any) -> None:
        config = StreamConfig(name=name, subjects=[f"{name}.>"], **limits)
        self._with(lambda js: js.add_stream(config))

    def drop(self, name: str) -> None:
        self._with(lambda js: js.delete_stream(name))

    def fill(self, name: str, n: int, first: int = 1, subject: str = "a") -> None:
        async def publish(js) -> None:
            for i in range(first, first + n):
                await js.publish(f"{name}.{subject}", json.dumps({"a": i, "y": i % 7}).encode())

        self._with(publish)

    def publish(self, subject: str, payloads: list[bytes]) -> None:
        async def publish(js) -> None:
            for payload in payloads:
                await js.publish(subject, payload)

        self._with(publish)

    def purge(self, name: str, before: int) -> None:
        """Remove what stands before a sequence."""
        self._with(lambda js: js.purge_stream(name, seq=before))

    def messages(self, name: str, subject: str) -> list[bytes]:
        async def read(js) -> list[bytes]:
            state = (await js.stream_info(name)).state
            found = []
            for seq in range(state.first_seq, state.last_seq + 1):
                try:
                    message = await js.get_msg(name, seq)
                except nats.js.errors.NotFoundError:
                    continue
                if message.subject == subject:
                    found.append(message.data or b"")
            return found

        return self._with(read)
