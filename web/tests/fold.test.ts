// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import table from "../../tests/golden/terminal_cases.json";
import { Fold } from "../src/terminal/fold";
import type { Row } from "../src/terminal/row";
import { PLAIN } from "../src/terminal/style";

type Shown = (string | [string, object])[];

/** Cases that another program made of its own fold, instead of the table's. */
const made = process.env.TERMINAL_CASES;
const cases: typeof table = made ? JSON.parse(readFileSync(made, "utf-8")) : table;

/** UTF-8; `\udcNN` in the table stands for the byte NN. */
function bytesOf(text: string): Uint8Array {
  const parts = text.split(/([\udc80-\udcff])(?<![\ud800-\udbff].)/);
  const bytes = parts.flatMap((part) =>
    /^[\udc80-\udcff]$/.test(part) ? [part.charCodeAt(0) - 0xdc00] : [...new TextEncoder().encode(part)],
  );
  return Uint8Array.from(bytes);
}

function shown(row: Row): Shown {
  const pieces: Shown = [];
  let from = 0;
  for (const { to, style } of row.runs.length ? row.runs : [{ to: row.text.length, style: PLAIN }]) {
    const text = row.text.slice(from, to);
    if (text) pieces.push(style === PLAIN ? text : [text, style]);
    from = to;
  }
  return pieces;
}

function rowsOf(pieces: Iterable<Uint8Array>): { rows: Row[]; fold: Fold } {
  const fold = new Fold(0);
  const rows: Row[] = [];
  for (const piece of pieces) rows.push(...fold.write(piece).added);
  rows.push(...fold.close().added);
  if (rows.length && fold.fresh) rows.pop();
  return { rows, fold };
}

function* cut(bytes: Uint8Array, size: number): Iterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const normal = (row: unknown): Shown => (typeof row === "string" ? (row ? [row] : []) : (row as Shown));

for (const one of cases) {
  test(`terminal: ${one.name}`, () => {
    const pieces = one.bytes.map(bytesOf);
    const whole = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
    const wanted = (one.rows as unknown[]).map(normal);
    const { rows } = rowsOf(pieces);
    expect(rows.map(shown)).toEqual(wanted);
    if (one.stamps) expect(rows.map((row) => row.stamp)).toEqual(one.stamps);
    for (const size of whole.length < 5000 ? [1, 2, 3, 7] : [997]) expect(rowsOf(cut(whole, size)).rows.map(shown)).toEqual(wanted);
  });
}

test("each row knows the byte that its line begins with, in any cuts", () => {
  const text = new TextEncoder().encode("é1\n\x1b[31m漢\r\n\ufffd\nlast");
  const starts = [0, 4, 14, 18];
  for (const size of [1, 2, 5, 100]) {
    const { rows, fold } = rowsOf(cut(text, size));
    expect(rows.map((row) => row.offset)).toEqual(starts);
    expect(fold.end).toBe(text.length);
  }
});

test("a line of 50 MB is held by its first part, and says where the rest begins", () => {
  const fold = new Fold(0);
  const piece = "x".repeat(65536);
  const rows: Row[] = [];
  for (let n = 0; n < 800; n += 1) rows.push(...fold.write(piece).added);
  rows.push(...fold.write("\nafter\n").added);
  expect(rows.map((row) => row.text.length)).toEqual([131072, 5, 0]);
  expect(rows[0]?.rest).toBe(131072);
  expect(rows[0]?.end).toBe(800 * 65536 + 1);
});

test("progress without a line end stays one row", () => {
  const fold = new Fold(0);
  const rows: Row[] = [];
  for (let n = 0; n < 500; n += 1) rows.push(...fold.write("50 %\r".repeat(1000)).added);
  expect(rows.map((row) => row.text)).toEqual(["50 %"]);
});
