# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The cases of the Autobahn testsuite, where there is one: `WSTEST` names its program.

Its release on PyPI does not start on Python 3, so `test_frames.py` has cases of ours: fragments,
control frames, reserved bits and opcodes, close codes, UTF-8.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.hostile.sockets.test_frames import echo

PROGRAM = os.environ.get("WSTEST") or shutil.which("wstest")
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
LARGER = ["9.*", "12.*", "13.*"]
"""Left out: messages over 64 KiB are closed with 1009 here, and nothing is compressed."""
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


@pytest.mark.skipif(PROGRAM is None, reason="the Autobahn testsuite is not installed")
@pytest.mark.timeout(600)
async def test_the_autobahn_testsuite_finds_no_fault(tmp_path: Path) -> None:
    """Framing, pings, reserved bits, opcodes, fragments, UTF-8 and closing: some 300 cases."""
    assert PROGRAM is not None
    async with echo() as server:
        specification = tmp_path / "fuzzingclient.json"
        specification.write_text(
            json.dumps(
                {
                    "outdir": str(tmp_path / "reports"),
                    "servers": [{"agent": "ours", "url": server.url}],
                    "cases": CASES,
                    "exclude-cases": LARGER,
                }
            ),
            encoding="utf-8",
        )
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "-m", "fuzzingclient", "-s", str(specification), cwd=tmp_path
        )
        assert await process.wait() == 0
    found = json.loads((tmp_path / "reports" / "index.json").read_text(encoding="utf-8"))["ours"]
    assert len(found) > 200
    bad = {
        case: (result["behavior"], result["behaviorClose"])
        for case, result in found.items()
        if result["behavior"] not in GOOD or result["behaviorClose"] not in GOOD
    }
    assert bad == {}
