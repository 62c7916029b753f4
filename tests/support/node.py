# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""Node.js as this machine has it."""

from __future__ import annotations

import shutil
import subprocess

NODE = shutil.which("node")


def command() -> list[str]:
    """Node.js with a WebSocket, which it has of its own from 22 on; empty where there is none."""
    if NODE is None:
        return []
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    has_one = int(version.lstrip("v").partition(".")[0]) >= 22
    return [NODE] if has_one else [NODE, "--no-warnings", "--experimental-websocket"]
