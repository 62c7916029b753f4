// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** What is one row of the page's log: a line, a hole where lines are not loaded, a line's long rest. */

import type { Row } from "../terminal/row";
import { harmless } from "../terminal/text";
import type { LogFile } from "./file";
import { severity, type Severity } from "./severity";

export type Kind = "line" | "hole" | "rest";

export class Entry {
  readonly kind: Kind;
  readonly file: LogFile;
  /** Where it stands among the lines of other files: the newest time stamp up to it. */
  key = "";
  text = "";
  row: Row | null = null;
  /** Bytes that are not shown; of a line, where it begins. `to` of a hole: Infinity where nobody knows. */
  from: number;
  to: number;
  /** Used while two lists are compared. */
  mark = 0;
  private judged = "";
  private bad: Severity = "";

  constructor(kind: Kind, file: LogFile, from: number, to: number) {
    this.kind = kind;
    this.file = file;
    this.from = from;
    this.to = to;
  }

  get stamp(): string {
    return this.row?.stamp ?? "";
  }

  /** How bad it is, by its words; looked at once for each text. */
  get severity(): Severity {
    if (this.judged !== this.text) {
      this.judged = this.text;
      this.bad = severity(this.text);
    }
    return this.bad;
  }
}

export function lineEntry(file: LogFile, row: Row): Entry {
  const entry = new Entry("line", file, row.offset, row.end);
  entry.row = row;
  entry.text = row.text;
  row.entry = entry;
  return entry;
}

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

/** A number of bytes for people. */
export function size(bytes: number): string {
  let value = bytes;
  let unit = 0;
  for (; value >= 1000 && unit < UNITS.length - 1; unit += 1) value /= 1000;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** What a hole says. */
export function holeText(hole: Entry): string {
  const name = harmless(hole.file.name);
  if (hole.kind === "rest") return `… ${size(hole.to - hole.from)} more of this line`;
  if (hole.to === Infinity) return `⋯ newer lines of ${name} are not loaded`;
  const which = hole.from === 0 ? "earlier" : "more";
  return `⋯ ${which} lines of ${name}: ${size(hole.to - hole.from)}`;
}
