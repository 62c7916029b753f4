# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""What hid or showed wrong text on the page, or made it hard to work with, and does no longer."""

from __future__ import annotations

import hashlib
import json
import tarfile
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from playwright.async_api import Browser, Page, WebSocketRoute, expect

from sandbox.model.actors import Actor
from sandbox.stack import Stack
from tests.browser.test_page import FIRST, coloured, open_page, running_request, shown, user

__all__ = ["user"]  # the fixture

_SELECT_ALL = "Control+a"
_SCROLLER = "document.querySelector('#log > div').shadowRoot.querySelector('.cm-scroller')"


async def ready(page: Page, lines: str) -> None:
    """So many lines are loaded."""
    await expect(page.locator("#count")).to_contain_text(f"{lines} lines")


async def test_what_is_not_loaded_is_a_row_that_can_be_filled(
    page: Page, stack: Stack, user: Actor
) -> None:
    """An error at the very beginning is a click away, and the count says how much is shown."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user)
    await cluster.write_log(request, "stderr.txt", b"ERROR: cannot open reference\n")
    text = "".join(f"line {n}\n" for n in range(6000))
    await cluster.write_log(request, "stdout.txt", text.encode())
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#count")).to_contain_text("showing ")
    await expect(page.locator("#log")).to_contain_text("line 5999")
    await page.locator("#beginning").click()
    await expect(page.locator("#log")).to_contain_text("line 0")
    await expect(page.locator("#log")).to_contain_text("ERROR: cannot open reference")
    await page.get_by_role("tab", name="stdout.txt").click()
    await page.locator("#beginning").click()
    await expect(page.locator("#log .cm-line").first).to_have_text("line 0")


async def test_a_hole_says_what_is_missing(page: Page, stack: Stack, user: Actor) -> None:
    """Which file, how much; filled from either side or from the beginning."""
    text = "".join(f"line {n:05d} {'.' * 88}\n" for n in range(20_000))
    request, _ = await running_request(stack, user, text)
    await open_page(page, stack, request.uuid, user)
    await ready(page, "2,000")
    await page.locator("#log .cm-content").press("Home")
    await expect(page.locator("#log .cm-line").first).to_contain_text("line 00000")
    await page.locator("#goto").fill("2600")
    await page.locator("#goto").press("Enter")
    hole = page.locator("#log .hole").first
    await expect(hole).to_contain_text("more lines of stdout.txt")
    await page.locator("#follow").click()
    await expect(page.locator("#log")).to_contain_text("line 19999")


async def test_find_looks_at_the_whole_log(page: Page, stack: Stack, user: Actor) -> None:
    """Also where it is not loaded; what comes later is counted, and a tab counts its own lines."""
    cluster = stack.sandbox.cluster
    text = "".join(
        f"line {n:05d} {'NEEDLE' if n % 10_000 == 5 else '.' * 88}\n" for n in range(30_000)
    )
    request, _ = await running_request(stack, user, text)
    await cluster.write_log(request, "stderr.txt", b"no needle here\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("line 29999")
    await page.locator("#sought").fill("needle")
    await expect(page.locator("#hits")).to_have_text("4 lines")
    await page.get_by_role("tab", name="stdout.txt").click()
    await expect(page.locator("#hits")).to_have_text("3 lines")
    await page.locator("#sought").press("Enter")
    await expect(page.locator("#log .picked")).to_have_text("line 00005 NEEDLE")
    await page.locator("#sought").press("Enter")
    await expect(page.locator("#log .picked")).to_have_text("line 10005 NEEDLE")
    await cluster.write_log(request, "stdout.txt", b"the last needle\n")
    await expect(page.locator("#hits")).to_have_text("2 of 4 lines")


async def test_what_is_found_and_cannot_be_gone_to_is_said(
    page: Page, stack: Stack, user: Actor
) -> None:
    """Lines are counted without bound; ten thousand of them can be gone to."""
    request, _ = await running_request(stack, user, "needle\n" * 30_000)
    await open_page(page, stack, request.uuid, user)
    await ready(page, "2,000")
    await page.locator("#sought").fill("needle")
    await expect(page.locator("#hits")).to_have_text("30,000 lines, 10,000 can be gone to")


async def test_find_looks_at_all_of_a_line(page: Page, stack: Stack, user: Actor) -> None:
    """Also at what of a long one is not shown, and at one that comes in two parts; each counts
    once."""
    cluster = stack.sandbox.cluster
    long = f"{'x' * 200_000}deep{'x' * 200_000}deep"
    request, _ = await running_request(stack, user, f"first\n{long}\nlast\nhello wo")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log .cm-line").last).to_have_text("hello wo")
    await page.locator("#sought").fill("DEEP")
    await expect(page.locator("#hits")).to_have_text("1 line")
    await page.locator("#sought").press("Enter")
    await expect(page.locator("#log .picked")).to_contain_text("xxxx")
    await expect(page.locator("#line")).to_contain_text("further on in this line")
    await page.locator("#sought").fill("world")
    await expect(page.locator("#hits")).to_have_text("0 lines")
    await cluster.write_log(request, "stdout.txt", b"rld")
    await expect(page.locator("#hits")).to_have_text("1 line")
    await page.locator("#sought").press("Enter")
    await expect(page.locator("#log .picked")).to_have_text("hello world")
    await expect(page.locator("#line")).not_to_contain_text("further on in this line")
    await page.locator("#follow").click()
    await cluster.write_log(request, "stdout.txt", b", all the world\n")
    await expect(page.locator("#log")).to_contain_text("all the world")
    await expect(page.locator("#hits")).to_have_text("1 of 1 line")


async def test_a_line_and_a_time_can_be_gone_to(page: Page, stack: Stack, user: Actor) -> None:
    """Far from what is loaded."""
    text = "".join(
        f"2026-11-25T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}.000000000Z line {n:05d}"
        f" {'.' * 70}\n"
        for n in range(30_000)
    )
    request, _ = await running_request(stack, user, text)
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("line 29999")
    await page.get_by_role("tab", name="stdout.txt").click()
    await page.locator("#goto").fill("12346")
    await page.locator("#goto").press("Enter")
    await expect(page.locator("#log .picked")).to_contain_text("line 12345")
    await page.locator("#goto").fill("01:00:00")
    await page.locator("#goto").press("Enter")
    await expect(page.locator("#log .picked")).to_contain_text("line 03600")
    await page.locator("#times").select_option("utc")
    await expect(page.locator("#log .times")).to_contain_text("01:00:00.000")
    await page.locator("#goto").fill("25:00")
    await page.locator("#goto").press("Enter")
    await expect(page.locator("#line")).to_contain_text("there is no such time of day")


async def test_what_is_read_stays_where_it_is(page: Page, stack: Stack, user: Actor) -> None:
    """While lines come by the thousand, also when old ones are let go of; and what is selected
    stays selected."""
    cluster = stack.sandbox.cluster
    text = "".join(f"line {n:06d}\n" for n in range(2000))
    request, _ = await running_request(stack, user, text)
    await open_page(page, stack, request.uuid, user)
    await ready(page, "2,000")
    await page.evaluate(f"{_SCROLLER}.scrollTop = 5000")
    await expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")
    before = await page.evaluate(FIRST)
    for part in range(12):
        many = "".join(f"more {n:06d}\n" for n in range(part * 10_000, (part + 1) * 10_000))
        await cluster.write_log(request, "stdout.txt", many.encode())
    await expect(page.locator("#count")).to_contain_text("122,000 lines")
    assert await page.evaluate(FIRST) == before
    await page.locator("#follow").click()
    await expect(page.locator("#log")).to_contain_text("more 119999")
    await cluster.write_log(request, "stdout.txt", b"and one\n")
    await expect(page.locator("#log")).to_contain_text("and one")
    await expect(page.locator("#count")).to_contain_text("100,00")


async def test_lines_are_copied_as_they_are(page: Page, stack: Stack, user: Actor) -> None:
    """With line ends and tabs, also those that are not on the screen; a selection survives lines
    that come."""
    cluster = stack.sandbox.cluster
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    text = "".join(f"a\tb {n}\n" for n in range(500))
    request, _ = await running_request(stack, user, text)
    await open_page(page, stack, request.uuid, user)
    await ready(page, "500")
    await page.locator("#log .cm-content").focus()
    await page.keyboard.press(_SELECT_ALL)
    await cluster.write_log(request, "stdout.txt", b"later\n")
    await ready(page, "501")
    await page.keyboard.press("Control+c")
    assert await page.evaluate("navigator.clipboard.readText()") == text.removesuffix("\n")


async def test_tabs_and_wide_letters_stay_on_the_screen(
    page: Page, stack: Stack, user: Actor
) -> None:
    """40 columns with tabs, and wide letters: nothing is beyond the right edge."""
    columns = "\t".join(f"col{n:02d}" for n in range(40))
    request, _ = await running_request(stack, user, f"{columns}\n{'漢字' * 200}\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("col39")
    widths = await page.evaluate(f"[{_SCROLLER}.scrollWidth, {_SCROLLER}.clientWidth]")
    assert widths[0] == widths[1]


async def test_colours_are_of_their_file(page: Page, stack: Stack, user: Actor) -> None:
    """Among lines of other files, and after a carriage return."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user)
    stamp = "2026-11-25T01:02:03.{:09d}Z "
    red = f"{stamp.format(1)}\x1b[31mred\n{stamp.format(3)}red too\n\x1b[0m\rplain\nlast\n"
    await cluster.write_log(request, "stdout.txt", red.encode())
    await cluster.write_log(request, "stderr.txt", f"{stamp.format(2)}other\n".encode())
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log .cm-line")).to_have_text(
        ["red", "other", "red too", "plain", "last"]
    )
    colours = [[piece[1] for piece in await coloured(page, row)] for row in range(5)]
    assert colours == [[True], [False], [True], [False], [False]]
    assert await page.locator("#log .names").inner_text() != ""


async def test_bars_look_as_on_a_terminal_at_its_end(page: Page, stack: Stack, user: Actor) -> None:
    """Nested bars, which move the cursor up: three rows, not one for each step."""
    bars = "".join(f"\n\r inner {n}\x1b[A\r outer {n}" for n in range(40))
    request, _ = await running_request(stack, user, f"begin\n{bars}\n\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("outer 39")
    assert await shown(page) == ["begin", " outer 39", " inner 39"]


async def test_a_line_of_50_mb_stops_nobody(page: Page, stack: Stack, user: Actor) -> None:
    """Its beginning is shown, the rest on demand, and what follows it at once."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "before\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("before")
    for _ in range(50):
        await cluster.write_log(request, "stdout.txt", b"0123456789" * 100_000)
    await cluster.write_log(request, "stdout.txt", b"\nafter\n")
    await expect(page.locator("#log .cm-line").last).to_have_text("after")
    rest = page.locator("#log .hole")
    await expect(rest).to_contain_text("49.9 MB more of this line")
    await page.get_by_role("button", name="show more").click()
    await expect(rest).to_contain_text("49.8 MB more of this line")
    assert await page.locator("#log .cm-line").count() < 20


async def test_what_is_shown_can_be_saved_byte_for_byte(
    page: Page, stack: Stack, user: Actor, tmp_path: Path
) -> None:
    """A file as it is, whatever its bytes; several as a tar file, however long their names are."""
    cluster = stack.sandbox.cluster
    written = b"".join(b"%06d \xff\xfe \0 \x1b[31m \r\n" % n for n in range(30_000)) + b"no end"
    request, container = await running_request(stack, user)
    await cluster.write_log(request, "stdout.txt", written)
    await cluster.write_log(request, "stderr.txt", b"err\n")
    long = f"{'名' * 60}.log"
    await cluster.write_log(request, long, b"long\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#log")).to_contain_text("no end")
    for name in ("stderr.txt", "名"):
        await expect(page.get_by_role("tab", name=name)).to_be_visible()
    async with page.expect_download() as started:
        await page.locator("#saveall").click()
    await (await started.value).save_as(tmp_path / "logs.tar")
    with tarfile.open(tmp_path / "logs.tar") as archive:
        files = {
            name.rpartition("/")[2]: archive.extractfile(name).read()  # type: ignore[union-attr]
            for name in archive.getnames()
        }
        assert archive.getnames()[0].startswith(container.uuid)
    assert (files["stderr.txt"], files[long]) == (b"err\n", b"long\n")
    assert hashlib.md5(files["stdout.txt"]).digest() == hashlib.md5(written).digest()
    await page.get_by_role("tab", name="stdout.txt").click()
    async with page.expect_download() as started:
        await page.locator("#save").click()
    download = await started.value
    assert download.suggested_filename == "stdout.txt"
    await download.save_as(tmp_path / "stdout.txt")
    assert (tmp_path / "stdout.txt").read_bytes() == written


async def test_saving_holds_up_nobody(page: Page, stack: Stack, user: Actor) -> None:
    """While a log of any size is saved, one reads on in it."""
    text = "".join(f"line {n}\n" for n in range(6000))
    request, _ = await running_request(stack, user, text)
    opened: list[WebSocketRoute] = []

    def slowly(line: WebSocketRoute) -> None:
        opened.append(line)
        number, server = len(opened), line.connect_to_server()

        def pass_on(message: str | bytes) -> None:
            if number != 2 or not {"log", "caught_up"} & set(json.loads(message)):
                line.send(message)

        server.on_message(pass_on)
        line.on_message(server.send)

    await page.route_web_socket("**/v1/stream", slowly)
    await open_page(page, stack, request.uuid, user)
    await ready(page, "2,000")
    await page.locator("#save").click()
    await expect(page.locator("#busy")).to_contain_text("saving")
    await page.locator("#beginning").click()
    await expect(page.locator("#log .cm-line").first).to_have_text("line 0")
    await expect(page.locator("#busy")).to_contain_text("saving")


async def test_a_link_leads_to_a_range(page: Page, stack: Stack, user: Actor) -> None:
    """Lines that are selected, as a link; opened again, they are marked."""
    request, _ = await running_request(stack, user, "".join(f"line {n}\n" for n in range(300)))
    await open_page(page, stack, request.uuid, user)
    await page.get_by_text("line 295", exact=True).click()
    await page.keyboard.press("Shift+ArrowDown")
    await page.keyboard.press("Shift+ArrowDown")
    await page.locator("#link").click()
    await expect(page.locator("#log .picked")).to_have_text(["line 295", "line 296", "line 297"])
    assert user.token not in page.url
    await page.reload()
    await expect(page.locator("#log .picked")).to_have_text(["line 295", "line 296", "line 297"])


async def test_a_time_behind_a_long_trace_is_found(page: Page, stack: Stack, user: Actor) -> None:
    """Many lines without a time stamp stand between those with one."""
    trace = "".join(f"    at some.package.Frame{n}(Frame.java:{n})\n" for n in range(2000))
    text = "".join(f"2026-11-25T01:{n:02d}:00Z minute {n}\n{trace}" for n in range(30))
    request, _ = await running_request(stack, user, text)
    await open_page(page, stack, request.uuid, user)
    await ready(page, "2,000")
    await page.locator("#times").select_option("utc")
    await page.locator("#goto").fill("01:13:00")
    await page.locator("#goto").press("Enter")
    await expect(page.locator("#log .picked")).to_have_text("minute 13")


async def test_main_logs_come_first(page: Page, stack: Stack, user: Actor) -> None:
    """Statistics are there, but not in the way; rows say which file they are of."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "out\n")
    await cluster.write_log(request, "crunchstat.txt", b"stats\n")
    await cluster.write_log(request, "stderr.txt", b"err\n")
    await open_page(page, stack, request.uuid, user)
    await expect(page.get_by_role("tab", name="crunchstat.txt")).to_be_visible()
    await ready(page, "2")
    assert sorted(await shown(page)) == ["err", "out"]
    names = await page.locator("#log .names .cm-gutterElement").all_inner_texts()
    assert {name for name in names if name} == {"stdout", "stderr"}
    await page.get_by_role("tab", name="All files").click()
    await ready(page, "3")


async def test_errors_alone_can_be_shown(page: Page, stack: Stack, user: Actor) -> None:
    """And what comes later is measured alike."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(
        stack, user, "fine\nERROR: no space\nWARNING: old\n0 errors\n"
    )
    await open_page(page, stack, request.uuid, user)
    await ready(page, "4")
    await page.locator("#least").select_option("2")
    await expect(page.locator("#log .cm-line")).to_have_text(["ERROR: no space"])
    await cluster.write_log(request, "stdout.txt", b"fine again\nfatal: gone\n")
    await expect(page.locator("#log .cm-line")).to_have_text(["ERROR: no space", "fatal: gone"])
    await page.locator("#least").select_option("1")
    await expect(page.locator("#log .cm-line")).to_have_count(3)


async def test_a_failed_run_says_why(page: Page, stack: Stack, user: Actor) -> None:
    """The error with its detail, the warning as well, and what goes on."""
    cluster = stack.sandbox.cluster
    request, container = await running_request(stack, user, "x\n")
    await cluster.progress(
        container,
        error="Disk full",
        errorDetail="no space on /tmp\nnow",
        warning="slow disk",
        activity="cleaning",
    )
    await open_page(page, stack, request.uuid, user)
    await expect(page.locator("#state .error")).to_contain_text("Disk full")
    await expect(page.locator("#state .error pre")).to_have_text("no space on /tmp\nnow")
    await expect(page.locator("#state .warning")).to_contain_text("slow disk")
    await expect(page.locator("#state .activity")).to_contain_text("cleaning")


async def test_the_wheel_leaves_following(page: Page, stack: Stack, user: Actor) -> None:
    """At any rate of lines."""
    cluster = stack.sandbox.cluster
    request, _ = await running_request(stack, user, "".join(f"line {n}\n" for n in range(2000)))
    await open_page(page, stack, request.uuid, user)
    await ready(page, "2,000")
    await page.locator("#log").hover()
    for part in range(10):
        many = "".join(f"more {part} {n}\n" for n in range(200))
        await cluster.write_log(request, "stdout.txt", many.encode())
        if part == 4:
            await page.mouse.wheel(0, -300)
    await expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")
    first = await page.evaluate(FIRST)
    await ready(page, "4,000")
    assert await page.evaluate(FIRST) == first


async def test_a_time_is_that_of_the_clock_that_one_sees(
    browser: Browser, stack: Stack, user: Actor
) -> None:
    """The times that the page shows of a process are those of where one is, and so is one that is
    typed; where UTC or the time since the beginning is shown, it is that."""
    cluster = stack.sandbox.cluster
    request, container = await running_request(stack, user)
    began = datetime.fromisoformat(str((await cluster.reload(container))["started_at"]))
    text = "".join(
        f"{began + timedelta(minutes=n):%Y-%m-%dT%H:%M:%S}.000000000Z minute {n}\n"
        for n in range(600)
    )
    await cluster.write_log(container, "stdout.txt", text.encode())
    context = await browser.new_context(timezone_id="Asia/Tokyo")
    page = await context.new_page()
    await open_page(page, stack, request.uuid, user)
    await ready(page, "600")
    wanted = began + timedelta(minutes=77)
    there = wanted.astimezone(ZoneInfo("Asia/Tokyo"))
    for times, time in (
        ("off", f"{there:%H:%M:%S}"),
        ("local", f"{there:%H:%M:%S}"),
        ("utc", f"{wanted:%H:%M:%S}"),
        ("relative", "1:17:00"),
    ):
        await page.locator("#times").select_option(times)
        await page.locator("#goto").fill(time)
        await page.locator("#goto").press("Enter")
        await expect(page.locator("#log .picked")).to_have_text("minute 77")
        if times != "off":
            await expect(page.locator("#log .times")).to_contain_text(time)
        await page.locator("#beginning").click()
        await expect(page.locator("#log .picked")).to_have_text("minute 0")
    await context.close()
