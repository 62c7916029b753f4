# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What settings have us send in the clear, or to whomever answers: allowed, and told at the start.

Pure. What does not leave the machine is no matter.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_settings import BaseSettings

from arvados_nats.nats.addresses import is_in_the_clear, is_loopback


def warnings(settings: BaseSettings) -> Iterator[tuple[str, str]]:
    """The settings of a service that do so, each with what comes of it."""
    host = getattr(settings, "arvados_api_host", "")
    if host.startswith("http://") and not is_loopback(host):
        yield "arvados_api_host", "tokens go to Arvados in the clear: leave http:// out"
    if getattr(settings, "arvados_api_host_insecure", False):
        yield (
            "arvados_api_host_insecure",
            "the controller's certificate is not checked, and whoever stands between gets every"
            " token; TLS.Insecure of Arvados' config.yml says the same",
        )
    for server in getattr(settings, "nats_servers", ()):
        if is_in_the_clear(server):
            yield "nats_url", f"{server} is reached without TLS unless it asks for it: use tls://"
