// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * The rows of one view: those of one file, or of several by time stamp, in a window that is bounded.
 *
 * No file's own order is ever changed. What changes in the list is told as edits, so that a view changes
 * nothing else: what is read and selected stays.
 */

import type { Entry } from "./entries";
import type { Arrived, LogFile } from "./file";

/** Rows `from` up to before `to`, counted before the edits, are replaced. */
export interface Edit {
  from: number;
  to: number;
  entries: Entry[];
}

/** Beyond it, what is farthest from the reader is let go of. */
export const MOST_ROWS = 100_000;
export const MOST_CHARACTERS = 32 * 1024 * 1024;
const SLACK = 5000;
const BADNESS = { "": 0, warning: 1, error: 2 } as const;

let generation = 0;

export class Sheet {
  readonly files: Set<LogFile>;
  entries: Entry[] = [];
  /** The texts as they stand in the document. */
  private drawn: string[] = [];

  /** Lines that are less bad than this are left out: 1 warnings, 2 errors. */
  private readonly least: number;

  constructor(files: Iterable<LogFile>, least = 0) {
    this.files = new Set(files);
    this.least = least;
    this.entries = this.merged();
    this.drawn = this.entries.map((entry) => entry.text);
  }

  get lastKey(): string {
    return this.entries.at(-1)?.key ?? "";
  }

  private merged(): Entry[] {
    const lists = [...this.files].map((file) => this.accepted(file)).filter((list) => list.length);
    if (lists.length < 2) return lists[0] ?? [];
    return lists.reduce(merge);
  }

  private accepted(file: LogFile): Entry[] {
    const all = [...file.entries()];
    if (this.least === 0) return all;
    return all.filter((entry) => entry.kind !== "line" || BADNESS[entry.severity] >= this.least);
  }

  /** What came at the end of files. */
  take(arrivals: Arrived[]): Edit[] {
    if (this.least > 0) return this.refresh();
    const changed = new Set(arrivals.flatMap((arrived) => [...arrived.changed]));
    const added = arrivals.flatMap((arrived) => arrived.added);
    added.sort((one, other) => (one.key < other.key ? -1 : one.key > other.key ? 1 : 0));
    return this.apply([...this.rewritten(changed), ...this.placed(added)]);
  }

  private rewritten(changed: Set<Entry>): Edit[] {
    const edits: Edit[] = [];
    let left = changed.size;
    for (let at = this.entries.length - 1; at >= 0 && left > 0; at -= 1) {
      const entry = this.entries[at] as Entry;
      if (!changed.has(entry)) continue;
      left -= 1;
      if (entry.text !== this.drawn[at]) edits.push({ from: at, to: at + 1, entries: [entry] });
    }
    return edits;
  }

  private placed(added: Entry[]): Edit[] {
    const edits: Edit[] = [];
    let at = this.entries.length;
    for (let index = added.length - 1; index >= 0; index -= 1) {
      const entry = added[index] as Entry;
      while (at > 0 && (this.entries[at - 1] as Entry).key > entry.key) at -= 1;
      const last = edits.at(-1);
      if (last?.from === at) last.entries.push(entry);
      else edits.push({ from: at, to: at, entries: [entry] });
    }
    for (const edit of edits) edit.entries.reverse();
    return edits;
  }

  /** Bring the list up to date with the files, whatever happened to them. */
  refresh(): Edit[] {
    const wanted = this.merged();
    generation += 1;
    for (const entry of wanted) entry.mark = generation;
    const edits: Edit[] = [];
    const old = this.entries;
    let [i, j] = [0, 0];
    while (i < old.length || j < wanted.length) {
      const [from, first] = [i, j];
      while (i < old.length && (old[i] as Entry).mark !== generation) i += 1;
      while (j < wanted.length && wanted[j] !== old[i]) j += 1;
      if (i > from || j > first) edits.push({ from, to: i, entries: wanted.slice(first, j) });
      if (i < old.length && j < wanted.length) {
        const entry = old[i] as Entry;
        if (entry.text !== this.drawn[i]) edits.push({ from: i, to: i + 1, entries: [entry] });
        i += 1;
        j += 1;
      } else if (i < old.length) {
        edits.push({ from: i, to: old.length, entries: [] });
        i = old.length;
      }
    }
    return this.apply(edits);
  }

  /** `reading`: the first row on the screen, or -1 if the end is followed. */
  trim(reading: number): Edit[] {
    const characters = [...this.files].reduce((sum, file) => sum + file.characters, 0);
    const excess = this.entries.length - MOST_ROWS;
    if (excess < SLACK && characters < MOST_CHARACTERS) return [];
    const count = Math.max(excess, characters >= MOST_CHARACTERS ? this.entries.length >> 2 : 0);
    if (count === 0 || this.entries.length < 100) return [];
    if (reading < 0 || reading > count + SLACK) this.drop(this.entries.slice(0, count), true);
    else if (excess > MOST_ROWS || characters > 2 * MOST_CHARACTERS) {
      this.drop(this.entries.slice(-count), false);
    } else return [];
    return this.refresh();
  }

  private drop(gone: Entry[], front: boolean): void {
    const counts = new Map<LogFile, number>();
    for (const { kind, file } of gone) {
      if (kind === "line") counts.set(file, (counts.get(file) ?? 0) + 1);
    }
    for (const [file, count] of counts) {
      if (front) file.dropFront(count);
      else file.dropBack(count);
    }
  }

  private apply(edits: Edit[]): Edit[] {
    // An edit of a row comes before rows that are put behind it.
    edits.sort((one, other) => one.from - other.from || one.to - other.to);
    for (const { from, to, entries } of edits.toReversed()) {
      const texts = entries.map((entry) => entry.text);
      if (from >= this.entries.length) {
        for (const entry of entries) this.entries.push(entry);
        for (const text of texts) this.drawn.push(text);
      } else if (entries.length < 10_000) {
        this.entries.splice(from, to - from, ...entries);
        this.drawn.splice(from, to - from, ...texts);
      } else {
        this.entries = this.entries.slice(0, from).concat(entries, this.entries.slice(to));
        this.drawn = this.drawn.slice(0, from).concat(texts, this.drawn.slice(to));
      }
    }
    return edits;
  }
}

function merge(one: Entry[], other: Entry[]): Entry[] {
  const all: Entry[] = [];
  let [i, j] = [0, 0];
  while (i < one.length && j < other.length) {
    all.push((other[j] as Entry).key < (one[i] as Entry).key ? (other[j++] as Entry) : (one[i++] as Entry));
  }
  while (i < one.length) all.push(one[i++] as Entry);
  while (j < other.length) all.push(other[j++] as Entry);
  return all;
}
