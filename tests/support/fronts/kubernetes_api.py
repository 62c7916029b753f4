# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""As much of a Kubernetes API server as the Secret of keys needs: GET, POST, merge PATCH, RBAC."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "token-of-the-service-account"


class KubernetesApi(ThreadingHTTPServer):
    """Secrets by path, what was asked, and what may happen between a read and a write."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secrets: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.forbidden: set[str] = set()
        self.failing = False
        self.meanwhile: Callable[[KubernetesApi], None] = lambda _: None

    def store(self, path: str, entries: dict[str, str]) -> None:
        """Add entries to a Secret, and move its version on."""
        secret = self.secrets.setdefault(path, {"metadata": {}, "data": {}})
        version = int(secret["metadata"].get("resourceVersion", 0)) + 1
        secret["metadata"]["resourceVersion"] = str(version)
        secret["data"] |= {
            name: base64.b64encode(value.encode()).decode() for name, value in entries.items()
        }

    def entries(self, path: str) -> dict[str, str]:
        """What a pod that mounts the Secret would read."""
        return {
            name: base64.b64decode(value).decode()
            for name, value in self.secrets[path]["data"].items()
        }


class _Handler(BaseHTTPRequestHandler):
    server: KubernetesApi

    def do_GET(self) -> None:
        if self._may():
            secret = self.server.secrets.get(self.path)
            self._answer(200 if secret else 404, secret or {})
            self.server.meanwhile(self.server)

    def do_POST(self) -> None:
        if self._may():
            body = self._body()
            path = f"{self.path}/{body['metadata']['name']}"
            if path in self.server.secrets:
                self._answer(409, {})
                return
            self.server.store(path, body["stringData"])
            self._answer(201, self.server.secrets[path])

    def do_PATCH(self) -> None:
        if self._may():
            body, secret = self._body(), self.server.secrets[self.path]
            if self.headers["Content-Type"] != "application/merge-patch+json":
                self._answer(415, {})
            elif body["metadata"]["resourceVersion"] != secret["metadata"]["resourceVersion"]:
                self._answer(409, {})
            else:
                self.server.store(self.path, body["stringData"])
                self._answer(200, secret)

    def _may(self) -> bool:
        self.server.asked.append(self.command)
        if self.server.failing:
            self._answer(500, {})
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._answer(401, {})
        elif self.command in self.server.forbidden:
            self._answer(403, {})
        else:
            return True
        return False

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        if self.command != "GET" and status in (401, 403, 500):
            self._body()
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay quiet."""


@contextmanager
def run(context: ssl.SSLContext | None = None) -> Iterator[tuple[KubernetesApi, str]]:
    """The API on 127.0.0.1, and its URL."""
    with KubernetesApi() as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        scheme = "https" if context else "http"
        try:
            yield server, f"{scheme}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
