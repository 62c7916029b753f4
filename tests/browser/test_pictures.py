# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""The pictures in docs/pictures: ARVADOS_NATS_PICTURES=docs/pictures makes them anew."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.async_api import Page, expect

from sandbox.stack import Stack
from tests.browser.test_page import open_page

_STAMP = "2026-11-30T01:{:02d}:{:02d}.000000000Z "


async def test_a_failed_process_and_the_list(page: Page, stack: Stack, tmp_path: Path) -> None:
    """Taken where they are wanted, and else to see that they can be."""
    folder = Path(os.environ.get("ARVADOS_NATS_PICTURES") or tmp_path)
    cluster = stack.sandbox.cluster
    user = await cluster.user("photographer")
    for name in ("align-reads", "qc-report"):
        await cluster.run(await cluster.container_request(name, owner=user))
    request = await cluster.container_request("call-variants", owner=user)
    container = await cluster.run(request)
    lines = [
        f"{_STAMP.format(n // 60, n % 60)}sample {n:04d} \x1b[32mok\x1b[0m" for n in range(900)
    ]
    await cluster.write_log(container, "stdout.txt", "\n".join(lines).encode() + b"\n")
    said = "WARNING: disk nearly full", "\x1b[31mERROR\x1b[0m: cannot write /out/variants.vcf"
    errors = "".join(f"{_STAMP.format(14, 50 + n * 10)}{text}\n" for n, text in enumerate(said))
    await cluster.write_log(container, "stderr.txt", errors.encode())
    await cluster.progress(container, error="The container ran out of disk")
    await cluster.finish(container, exit_code=1)
    await page.set_viewport_size({"width": 1200, "height": 560})
    await open_page(page, stack, request.uuid, user, "")
    await expect(page.locator("#log")).to_contain_text("variants.vcf")
    await expect(page.locator("#verdict")).to_contain_text("Failed")
    await expect(page.locator("#line")).to_contain_text("complete")
    await page.screenshot(path=folder / "process.png")
    await page.set_viewport_size({"width": 1200, "height": 320})
    await page.locator("#home").click()
    await expect(page.get_by_role("row")).to_have_count(4)
    await page.screenshot(path=folder / "processes.png")
