// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

import { expect, test } from "vitest";
import { LogFile } from "../src/log/file";
import { Find, Scan } from "../src/log/find";
import { goalOf, stampOf } from "../src/log/places";
import { Ranges } from "../src/log/ranges";
import { timeText } from "../src/view/gutters";

const encoder = new TextEncoder();

function told(sought: string, text: string, size: number): [number, string][] {
  const found: [number, string][] = [];
  const scan = new Scan(sought, 1000, (offset, line) => found.push([offset, line.slice(0, 30)]));
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length; at += size) scan.add(bytes.subarray(at, at + size));
  scan.end();
  return found;
}

test("a long line is told once, by its first byte, wherever the text stands in it", () => {
  const stamp = "2026-11-25T01:02:03.000000001Z";
  const filling = "x".repeat(1024 * 1024 - 40);
  for (const more of [0, 5, 30, 33, 36, 40, 100]) {
    const line = `${stamp} ${filling}${"y".repeat(more)}needle${filling}needle`;
    expect(told("needle", `a\n${line}\nneedle\n`, 65536)).toEqual([
      [1002, stamp],
      [1003 + line.length, "needle"],
    ]);
  }
});

test("letters that become longer in lower case move nothing", () => {
  expect(told("needle", "İİİİİİ\nİİ NEEDLE\n", 1000)).toEqual([[1013, "İİ NEEDLE"]]);
});

test("a line that comes in two parts is counted when it has the text, and once", () => {
  const file = new LogFile("c", "f");
  const find = new Find("Hello World", new Ranges("c", "", () => ""), () => {});
  const see = (text: string, from: number) => {
    const { added, changed } = file.receive(text, from, from + text.length);
    for (const entry of [...added, ...changed]) find.look(entry);
  };
  see("hello wo", 0);
  expect(find.count).toBe(0);
  see("rld", 8);
  see(", hello world\nhello world\n", 11);
  expect(find.count).toBe(2);
});

test("what a long line has more than is shown is looked through, unless its beginning has the text", () => {
  const file = new LogFile("c", "f");
  const long = `needle${"x".repeat(300_000)}`;
  file.receive(`${long}\nlast\n`, 0, long.length + 6);
  expect([...file.unshown("needle")]).toEqual([]);
  const [[from = 0, to = 0] = []] = file.unshown("pin");
  expect(from).toBeGreaterThan(90_000);
  expect(from).toBeLessThan(140_000);
  expect(to).toBe(long.length);
});

test("more of a long line that is shown is no line of its own", () => {
  const file = new LogFile("c", "f");
  const long = `${"x".repeat(150_000)}needle`;
  file.receive(`${long}\nlast\n`, 0, long.length + 6);
  const rest = [...file.entries()].find(({ kind }) => kind === "rest");
  if (rest) file.extendLine(rest, encoder.encode(long.slice(rest.from)));
  expect([...file.entries()].filter(({ text }) => text.includes("needle")).length).toBe(1);
  const find = new Find("needle", new Ranges("c", "", () => ""), () => {});
  for (const entry of file.entries()) find.look(entry);
  expect([find.count, [...file.unshown("needle")].length]).toEqual([0, 1]);
});

test.each([
  ["1,234", { line: 1234 }],
  ["9:05", { time: { day: "", time: "09:05:00" } }],
  ["123:00:01", { time: { day: "", time: "123:00:01" } }],
  ["2026-11-25 01:02:03.5", { time: { day: "2026-11-25", time: "01:02:03" } }],
  ["11-25 1:02", { time: { day: "11-25", time: "01:02:00" } }],
  ["12:60", undefined],
  ["-3", undefined],
  ["soon", undefined],
])("what somebody types who goes somewhere: %s", (text, goal) => {
  expect(goalOf(text)).toEqual(goal);
});

test("a time that no day has is refused in words", () => {
  expect(() => stampOf({ day: "", time: "24:30:00" }, "2026-11-25T01:02:03", true)).toThrow("no such time of day");
});

test("a day without its year is that of the log, also over the end of a year", () => {
  const stamp = (day: string) => stampOf({ day, time: "01:00:00" }, "2026-12-31T22:00:00", false);
  expect(["01-01", "12-31", "12-30"].map(stamp)).toEqual([
    "2027-01-01T01:00:00", "2026-12-31T01:00:00", "2026-12-30T01:00:00",
  ]);
});

test("a line of another day says so", () => {
  const origin = "2026-11-25T23:59:59.000000000Z";
  expect(timeText("2026-11-25T23:59:59.000000001Z", "utc", origin)).toBe("23:59:59.000");
  expect(timeText("2026-11-26T00:00:01.250000000Z", "utc", origin)).toBe("11-26 00:00:01.250");
  expect(timeText("2026-11-26T00:00:01.250000000Z", "relative", origin)).toBe("0:00:02");
  expect(timeText("2026-12-31T00:00:01Z", "local", origin)).toMatch(/^12-3\d \d\d:00:01$/);
});
