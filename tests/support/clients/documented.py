# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The Python program of docs/clients as a module: read from its file, as a reader copies it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[2] / "clients" / "python" / "arvados_live.py"


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("arvados_live", _FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


arvados_live = _module()
