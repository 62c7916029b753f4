# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""A page that reads frames and logs as Workbench does, where Workbench would be."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlencode

PAGE = Path(__file__).with_name("workbench.html")


class Workbench:
    """Where it is served; with a script of somebody else's where a site puts one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def page(self, path: str, *, websocket: str, api: str, token: str, script: str = "") -> str:
        """The address of a page, `processes/<uuid>` for example."""
        query = f"?{urlencode({'script': script})}" if script else ""
        told = urlencode({"websocket": websocket, "api": api, "token": token})
        return f"{self.url}/{path}{query}#{told}"


@contextmanager
def run() -> Iterator[Workbench]:
    """It, on a free port of loopback."""
    text = PAGE.read_text(encoding="utf-8")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, _, query = self.path.partition("?")
            script = parse_qs(query).get("script", [""])[0]
            line = f"<head>\n{script}" if script else "<head>"
            body = text.replace("<head>", line, 1).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Workbench(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
