# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""An HAProxy that compresses what it passes on, as a site may have set it up."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.fronts import programs

_CONF = """
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  compression algo gzip
  compression type text/event-stream text/plain application/json
listen site
  bind 127.0.0.1:{port}
  server wsproxy {behind}
"""


@contextlib.asynccontextmanager
async def in_front(behind: str, folder: Path) -> AsyncIterator[str]:
    """The address of an HAProxy that passes everything to `behind`."""

    def conf(port: int) -> str:
        return _CONF.format(port=port, behind=urlsplit(behind).netloc)

    async with programs.running("haproxy", "haproxy", folder, conf, "-db", "-f") as url:
        yield url
