# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""An nginx with its default settings in front of a server: it buffers, and forwards no Upgrade."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from arvados_nats.admin.init import machine
from tests.support.fronts import programs

_CONF = """
daemon off; master_process off; pid nginx.pid;
events {{}}
http {{
  access_log access.log; client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  {beside}
  server {{ listen 127.0.0.1:{port}; {inside} location / {{ proxy_pass {behind}; }} }}
}}
"""


@contextlib.asynccontextmanager
async def in_front(
    behind: str, folder: Path, *, beside: str = "", inside: str = ""
) -> AsyncIterator[str]:
    """The address of an nginx that passes everything to `behind`; its access.log is in `folder`.

    More of its configuration may stand `beside` its server and `inside`.
    """
    options = ("-p", str(folder), "-e", str(folder / "error.log"), "-c")

    def conf(port: int) -> str:
        return _CONF.format(port=port, behind=behind, beside=beside, inside=inside)

    async with programs.running("nginx", "nginx-light", folder, conf, *options) as url:
        yield url


@contextlib.asynccontextmanager
async def before_controller(controller: str, wsproxy: str, folder: Path) -> AsyncIterator[str]:
    """The controller's address, with our lines for live logs in its nginx."""
    beside = (
        f"upstream arvados-nats-wsproxy {{ server {wsproxy.rpartition('/')[2]}; }}"
        f" upstream controller {{ server {controller.rpartition('/')[2]}; }}"
    )
    inside = machine.text("controller-logs.conf")
    async with in_front(controller, folder, beside=beside, inside=inside) as url:
        yield url


@contextlib.asynccontextmanager
async def before_workbench(
    workbench: str, wsproxy: str, websocket: str, folder: Path
) -> AsyncIterator[str]:
    """Workbench's address, with our lines for the script in its nginx."""
    beside = f"upstream arvados-nats-wsproxy {{ server {wsproxy.rpartition('/')[2]}; }}"
    named = machine.text("workbench.conf")
    inside = named.replace("wss://ws.xurid.example.com/websocket", websocket)
    async with in_front(workbench, folder, beside=beside, inside=inside) as url:
        yield url
