// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

import { expect, test } from "vitest";
import type { Entry } from "../src/log/entries";
import { LogFile } from "../src/log/file";
import { MOST_CHARACTERS, MOST_ROWS, Sheet, type Edit } from "../src/log/sheet";

const bytes = (text: string) => new TextEncoder().encode(text);

/** What a view shows that knows the edits alone. */
class Copy {
  texts: string[];

  constructor(sheet: Sheet) {
    this.texts = sheet.entries.map((entry) => entry.text);
  }

  apply(edits: Edit[]): void {
    for (const { from, to, entries } of edits.toReversed()) {
      this.texts.splice(from, to - from, ...entries.map((entry) => entry.text));
    }
  }
}

function texts(sheet: Sheet): string[] {
  return sheet.entries.map((entry) => entry.text);
}

test.each([["x".repeat(99) + "\n"], ["y".repeat(50_000) + "\n"], ["50 %\r"], ["z".repeat(1000)]])(
  "what is held is bounded whatever comes",
  (text) => {
    const file = new LogFile("c", "f");
    const sheet = new Sheet([file]);
    const run = text.repeat(Math.ceil(64_000 / text.length));
    let offset = 0;
    for (; offset < 70e6; offset += run.length) {
      const arrived = file.receive(run, offset, offset + run.length);
      if (arrived.holes) sheet.refresh();
      else sheet.take([arrived]);
      sheet.trim(-1);
    }
    expect(file.size).toBe(offset);
    expect(sheet.entries.length).toBeLessThan(MOST_ROWS + 10_000);
    expect(file.characters).toBeLessThan(1.1 * MOST_CHARACTERS);
    expect(sheet.entries.findLast((entry) => entry.kind === "line")?.text.slice(0, 4)).toBe(text.slice(0, 4));
  },
  240_000,
);

test("lines of several files stand by time stamp, and no file is reordered", () => {
  const [one, other] = [new LogFile("c", "stdout.txt"), new LogFile("c", "stderr.txt")];
  const sheet = new Sheet([one, other]);
  const copy = new Copy(sheet);
  const stamp = (n: number) => `2026-11-25T01:02:03.00000000${n}Z `;
  const out = `${stamp(1)}out 1\n${stamp(3)}out 3\nno stamp\n`;
  const err = `${stamp(2)}err 2\n${stamp(4)}err 4\n${stamp(2)}late\n`;
  copy.apply(sheet.take([one.receive(out, 0, out.length)]));
  copy.apply(sheet.take([other.receive(err, 0, err.length)]));
  expect(texts(sheet)).toEqual(["out 1", "err 2", "out 3", "no stamp", "err 4", "late"]);
  expect(copy.texts).toEqual(texts(sheet));
});

test("a hole is where something is not loaded, and goes when it is", () => {
  const file = new LogFile("c", "f");
  const sheet = new Sheet([file]);
  const copy = new Copy(sheet);
  file.receive("e\nf\n", 8, 12);
  copy.apply(sheet.refresh());
  expect(copy.texts).toEqual(["⋯ earlier lines of f: 8 bytes", "e", "f"]);
  file.insert(bytes("a\n"), 0);
  copy.apply(sheet.refresh());
  expect(copy.texts).toEqual(["a", "⋯ more lines of f: 6 bytes", "e", "f"]);
  file.insert(bytes("b\nc\nd\n"), 2);
  copy.apply(sheet.refresh());
  expect(copy.texts).toEqual(["a", "b", "c", "d", "e", "f"]);
  copy.apply(sheet.take([file.receive("g", 12, 13)]));
  copy.apply(sheet.take([file.receive("h\ni\n", 13, 17)]));
  expect(copy.texts).toEqual(["a", "b", "c", "d", "e", "f", "gh", "i"]);
  expect(file.at(3)?.text).toBe("b");
  expect([...file.holes()]).toEqual([]);
});

test("colours go on into what was loaded before, in order and never guessed", () => {
  const file = new LogFile("c", "f");
  file.receive("still\n\x1b[0mplain\nlast\n", 10, 30);
  file.insert(bytes("\x1b[31mred\n\n"), 0);
  const looks = [...file.entries()].map(({ text, row }) => [text, row?.runs.map(({ style }) => style.fg)]);
  expect(looks).toEqual([["red", [1]], ["", []], ["still", [1]], ["plain", []], ["last", []]]);
});

test("trimming takes from the end that nobody reads", () => {
  const file = new LogFile("c", "f");
  const run = "x\n".repeat(MOST_ROWS + 20_000);
  file.receive(run, 0, run.length);
  const sheet = new Sheet([file]);
  const copy = new Copy(sheet);
  expect(sheet.trim(10)).toEqual([]);
  copy.apply(sheet.trim(-1));
  expect(copy.texts.length).toBe(MOST_ROWS + 1);
  expect(copy.texts[0]).toMatch(/^⋯ earlier lines of f: 40/);
  expect(copy.texts).toEqual(texts(sheet));
});

test("edits tell what changed, whatever happens to the files", () => {
  let seed = 7;
  const random = (below: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
  for (let round = 0; round < 30; round += 1) {
    const files = ["a", "b", "c"].map((name) => new LogFile("c", name));
    const whole = files.map(() => 500 + random(500));
    const sheet = new Sheet(files);
    const copy = new Copy(sheet);
    const size = 100;
    files.forEach((file, index) => {
      file.size = (whole[index] as number) * size;
    });
    for (let step = 0; step < 40; step += 1) {
      const index = random(3);
      const file = files[index] as LogFile;
      const holes = [...file.holes()];
      const [from, to] = holes[random(holes.length || 1)] ?? [0, 0];
      const first = from / size + random((to - from) / size || 1);
      const count = Math.min(1 + random(20), to / size - first);
      if (random(4) === 0) file.dropFront(random(10));
      else if (count > 0) {
        const lines = Array.from({ length: count }, (_, n) => `${String(first + n).padStart(size - 1, "0")}\n`);
        file.insert(bytes(lines.join("")), first * size);
      }
      copy.apply(sheet.refresh());
      expect(copy.texts).toEqual(texts(sheet));
      for (const one of files) ordered(sheet.entries.filter((entry) => entry.file === one));
    }
  }
});

function ordered(entries: Entry[]): void {
  let reached = 0;
  for (const { kind, from, to, text } of entries) {
    expect(from).toBe(reached);
    if (kind === "line") expect(Number(text)).toBe(from / 100);
    reached = kind === "hole" ? to : from + 100;
  }
}
