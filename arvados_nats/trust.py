# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Whom a connection over TLS believes."""

from __future__ import annotations

import ssl

from arvados_nats.errors import ConfigError, said


def authority(file: str | None) -> ssl.SSLContext:
    """Who the PEM file names, or whom this machine trusts; ConfigError for a file of none."""
    try:
        return ssl.create_default_context(cafile=file or None)
    except OSError as error:
        raise ConfigError(f"no authority can be read from {file}: {said(error)}") from error
