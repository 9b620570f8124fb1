"""A receiver of webhooks: ``python receivers.py PORT FOLDER``.

Every request that it takes is a line of ``taken.jsonl``. The file ``mood.json`` says how it answers
the next requests: a list of moods, the first one is used up by each request, none is 200.
``{"status": 503, "headers": {...}}`` answers so and takes nothing; ``{"lost": true}`` takes it and
hangs up without an answer; ``{"slow": 0.5}`` takes it and answers late; ``{"garbage": true}`` takes
nothing and answers no HTTP; ``{"most": 3}`` stays, and refuses more than 3 records with 413.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mood = self.mood(body)
        if "garbage" in mood:
            self.wfile.write(b"\x00\xff\r\n\r\n")
            self.close_connection = True
        elif "status" in mood:
            self.answer(mood["status"], mood.get("headers", {}))
        else:
            self.take(body)
            if "slow" in mood:
                time.sleep(mood["slow"])
            if "lost" in mood:
                self.close_connection = True
            else:
                self.answer(200, {})

    def mood(self, body: bytes) -> dict[str, Any]:
        path = self.folder / "mood.json"
        moods: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        if not moods:
            return {}
        if "most" in moods[0]:
            return {"status": 413} if len(body.splitlines()) > moods[0]["most"] else {}
        path.write_text(json.dumps(moods[1:]))
        return moods[0]

    def take(self, body: bytes) -> None:
        with (self.folder / "taken.jsonl").open("a") as file:
            file.write(json.dumps({"headers": dict(self.headers), "body": body.decode()}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    Handler.folder = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
