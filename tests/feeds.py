"""Servers that send what is appended to a file: ``python feeds.py sse|websocket PORT FILE HOW``.

A line of the file is a JSON list: ``["data", text]`` is a message, ``["raw", text]`` bytes as they
are, ``["half", text]`` a message of which only half is sent the first time before the connection
closes, ``["end"]`` closes it once. HOW is ``resumes`` (goes on after Last-Event-ID),
``repeats`` (begins at the first line for everybody), ``forgets`` (sends a line to one connection,
once), or a status to answer every request with.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Feed:
    """What both servers have: lines by number, and where a connection begins."""

    def __init__(self, path: Path, how: str) -> None:
        self.path, self.how = path, how
        self.ended: set[int] = set()
        self.cursor = path.with_suffix(".cursor")

    def lines(self, last: str | None) -> Iterator[tuple[int, str, str]]:
        """(number, kind, text) from where this connection begins, for ever; stops at an end."""
        at = 0
        if self.how == "resumes" and last is not None:
            at = int(last) + 1
        if self.how == "forgets" and self.cursor.exists():
            at = int(self.cursor.read_text())
        while True:
            whole = self.path.read_text().split("\n")[:-1]
            for number in range(at, len(whole)):
                at = number + 1
                if self.how == "forgets":
                    self.cursor.with_suffix(".new").write_text(str(at))
                    self.cursor.with_suffix(".new").replace(self.cursor)
                kind, *more = json.loads(whole[number])
                broken = kind in ("end", "half") and number not in self.ended
                if broken:
                    self.ended.add(number)
                if kind == "half":
                    whole_text = f"id: {number}\ndata: {more[0]}"
                    kind, more = ("raw", [whole_text[:-5]]) if broken else ("data", more)
                if kind != "end":
                    yield number, kind, more[0]
                if broken:
                    return
            yield at, "idle", ""
            time.sleep(0.005)


def sse(port: int, feed: Feed) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(307)
                self.send_header("Location", "/stream?really=1")
                self.end_headers()
                return
            if feed.how.isdecimal():
                self.send_error(int(feed.how))
                return
            wrong = self.headers.get("Authorization") != "Bearer secret"
            if self.path == "/secret" and wrong:
                self.send_error(401)
                return
            self.send_response(200)
            kind = "text/html" if self.path == "/page" else "text/event-stream; charset=utf-8"
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(b"retry: 20\n\n")
            for number, kind, text in feed.lines(self.headers.get("Last-Event-ID")):
                if kind == "data":
                    self.wfile.write(f"id: {number}\ndata: {text}\n\n".encode())
                elif kind == "raw":
                    self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def websocket(port: int, feed: Feed) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import ServerConnection, serve

    def told(link: ServerConnection) -> None:
        request = link.request
        if request is not None and request.path == "/subscribe":
            link.send(json.dumps({"a": -1.0, "told": link.recv()}))
        try:
            for _, kind, text in feed.lines(None):
                if kind != "idle":
                    link.send(text)
                else:
                    link.ping()  # finds out that the other side has gone
        except ConnectionClosed:
            pass

    def refuse(link: ServerConnection, request: object) -> object:
        return link.respond(int(feed.how), "no\n") if feed.how.isdecimal() else None

    with serve(told, "127.0.0.1", port, process_request=refuse) as server:
        server.serve_forever()


if __name__ == "__main__":
    protocol, port, path, how = sys.argv[1:]
    threading.Thread(
        target={"sse": sse, "websocket": websocket}[protocol],
        args=(int(port), Feed(Path(path), how)),
    ).start()
