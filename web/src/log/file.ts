// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** One log file as far as it is loaded: stretches of it in order, and what lies between them. */

import { Fold } from "../terminal/fold";
import type { Row } from "../terminal/row";
import { PLAIN, onTopOf, type Style } from "../terminal/style";
import { lower } from "../terminal/text";
import { Entry, holeText, lineEntry } from "./entries";

/** Bytes that are given to a fold at once: a line that is longer is cut at such borders only. */
const PORTION = 65536;

/** Bytes `from` up to before `to`, all loaded. */
class Stretch {
  from: number;
  to: number;
  entries: Entry[] = [];
  readonly fold: Fold;
  /** What lies before it, and is not loaded. */
  hole: Entry | null = null;
  /** The last row, as long as nothing stands in it. */
  hidden: Entry | null = null;

  constructor(from: number) {
    this.from = from;
    this.to = from;
    this.fold = new Fold(from);
  }
}

export interface Arrived {
  added: Entry[];
  changed: Set<Entry>;
  /** Holes or rests of lines came or went: the whole list is to be looked at. */
  holes: boolean;
}

export class LogFile {
  readonly name: string;
  readonly container: string;
  epoch = 0;
  /** Of the whole file, as far as anybody told. */
  size = 0;
  /** No more comes. */
  ended = false;
  characters = 0;
  private stretches: Stretch[] = [];
  private live: Stretch | null = null;
  private end: Entry;
  private readonly rests = new Map<Entry, { more: Entry[]; left: Entry }>();

  constructor(container: string, name: string) {
    this.container = container;
    this.name = name;
    this.end = new Entry("hole", this, 0, Infinity);
  }

  get lines(): number {
    return this.stretches.reduce((sum, { entries, hidden }) => sum + entries.length - (hidden ? 1 : 0), 0);
  }

  /** Bytes that are loaded. */
  get loaded(): number {
    return this.stretches.reduce((sum, stretch) => sum + stretch.to - stretch.from, 0);
  }

  /** The newest lines are loaded, and what comes is added to them. */
  get atEnd(): boolean {
    return this.live !== null || this.stretches.length === 0;
  }

  /** The last lines in which something stands, if the end is loaded. */
  lastLines(count: number): string[] {
    const lines = this.atEnd ? (this.stretches.at(-1)?.entries.slice(-4 * count) ?? []) : [];
    return lines.map(({ text }) => text.trimEnd()).filter(Boolean).slice(-count);
  }

  get lastKey(): string {
    return this.stretches.at(-1)?.entries.at(-1)?.key ?? "";
  }

  clear(epoch: number): void {
    this.stretches = [];
    this.live = null;
    this.rests.clear();
    this.characters = 0;
    this.epoch = epoch;
  }

  /** What comes from the stream. `key`: for lines without any time stamp before them. */
  receive(data: Uint8Array | string, offset: number, next: number, key = ""): Arrived {
    this.size = Math.max(this.size, next);
    if (this.live === null) {
      if (this.stretches.length) return { added: [], changed: new Set(), holes: true };
      this.live = this.begin(offset);
    }
    const joins = this.live.to === offset && this.live.to !== this.live.from;
    if (this.live.to !== offset) this.live = this.begin(offset);
    const arrived = this.extend(this.live, data, next, key);
    return joins ? arrived : { ...arrived, holes: true };
  }

  /** Bytes that were asked for; they begin with a line, and end with one or with the file. */
  insert(data: Uint8Array, offset: number): void {
    const before = this.stretches.find((stretch) => stretch.to === offset);
    const stretch = before ?? this.begin(offset);
    this.extend(stretch, data, offset + data.length, "");
    this.size = Math.max(this.size, stretch.to);
    this.join(stretch);
  }

  /** All that is there of a file whose newest lines were not loaded. */
  attach(): void {
    const last = this.stretches.at(-1);
    if (last && last.to >= this.size) this.live = last;
  }

  private begin(offset: number): Stretch {
    const stretch = new Stretch(offset);
    const at = this.stretches.findIndex((other) => other.from > offset);
    if (at < 0) this.stretches.push(stretch);
    else this.stretches.splice(at, 0, stretch);
    return stretch;
  }

  private extend(stretch: Stretch, data: Uint8Array | string, next: number, key: string): Arrived {
    const arrived: Arrived = { added: [], changed: new Set(), holes: false };
    for (let at = 0; at < data.length; at += PORTION) {
      const { added, changed } = stretch.fold.write(
        typeof data === "string" ? portion(data, at) : data.subarray(at, at + PORTION),
      );
      for (const row of added) {
        const entry = lineEntry(this, row);
        this.characters += entry.text.length;
        stretch.entries.push(entry);
        arrived.added.push(entry);
      }
      for (const row of changed) this.update(row, arrived.changed);
    }
    stretch.to = next;
    this.uncover(stretch, arrived);
    this.keys(stretch, arrived.added, key);
    return arrived;
  }

  private update(row: Row, changed: Set<Entry>): void {
    const { entry } = row;
    if (!(entry instanceof Entry)) return;
    this.characters += row.text.length - entry.text.length;
    entry.text = row.text;
    changed.add(entry);
  }

  /** A last row in which nothing stands is not shown; it is one that is new when something does. */
  private uncover(stretch: Stretch, arrived: Arrived): void {
    if (stretch.hidden) arrived.added.unshift(stretch.hidden);
    stretch.hidden = stretch.fold.fresh ? (arrived.added.pop() ?? null) : null;
    for (const entry of arrived.added) arrived.changed.delete(entry);
    arrived.holes = [...arrived.changed].some(({ row }) => row !== null && row.rest >= 0);
    if (stretch.hidden) arrived.changed.delete(stretch.hidden);
  }

  /** No line counts as earlier than the line before it in its file. */
  private keys(stretch: Stretch, added: Entry[], fallback: string): void {
    const first = stretch.entries.length - added.length - (stretch.hidden ? 1 : 0);
    let key = stretch.entries[first - 1]?.key ?? this.before(stretch)?.key ?? "";
    if (key === "") key = added.find((entry) => entry.stamp)?.stamp ?? fallback;
    for (const entry of added) {
      if (entry.stamp > key) key = entry.stamp;
      entry.key = key;
    }
  }

  private before(stretch: Stretch): Entry | undefined {
    return this.stretches[this.stretches.indexOf(stretch) - 1]?.entries.at(-1);
  }

  /** Two stretches that touch become one; colours go on from the first into the second. */
  private join(stretch: Stretch): void {
    const at = this.stretches.indexOf(stretch);
    const next = this.stretches[at + 1];
    if (!next || next.from > stretch.to) return;
    const rows = stretch.entries;
    if (stretch.hidden) rows.pop();
    if (recolour(next.entries, stretch.fold.look)) next.fold.inherit(stretch.fold.look);
    next.entries = rows.concat(next.entries);
    next.from = stretch.from;
    next.hole = stretch.hole;
    this.stretches.splice(at, 1);
  }

  /** Let go of so many lines at the front. */
  dropFront(count: number): void {
    let left = count;
    while (left > 0 && this.stretches.length) {
      const stretch = this.stretches[0] as Stretch;
      const gone = stretch.entries.splice(0, Math.min(left, stretch.entries.length));
      this.forget(gone);
      left -= gone.length;
      const first = stretch.entries[0];
      if (first) stretch.from = first.from;
      else if (stretch === this.live || this.stretches.length === 1) {
        stretch.from = stretch.to;
        return;
      } else this.stretches.shift();
    }
  }

  /** Let go of so many lines at the end; what comes is not added any more. */
  dropBack(count: number): void {
    let left = count;
    this.live = null;
    while (left > 0 && this.stretches.length) {
      const stretch = this.stretches.at(-1) as Stretch;
      const gone = stretch.entries.splice(Math.max(0, stretch.entries.length - left));
      this.forget(gone);
      left -= gone.length;
      if (stretch.entries.length) stretch.to = (gone[0] as Entry).from;
      else this.stretches.pop();
    }
  }

  private forget(gone: Entry[]): void {
    for (const entry of gone) {
      this.characters -= entry.text.length;
      for (const more of this.rests.get(entry)?.more ?? []) this.characters -= more.text.length;
      this.rests.delete(entry);
    }
  }

  /** Rows in order: lines, and holes where something is not loaded. */
  *entries(): Iterable<Entry> {
    let reached = 0;
    for (const stretch of this.stretches) {
      const { entries } = stretch;
      if (stretch.from > reached) {
        stretch.hole ??= new Entry("hole", this, 0, 0);
        yield filled(stretch.hole, reached, stretch.from, entries[0]?.key ?? "");
      }
      const shown = entries.length - (stretch.hidden ? 1 : 0);
      for (let at = 0; at < shown; at += 1) {
        const entry = entries[at] as Entry;
        yield entry;
        yield* this.restOf(entry);
      }
      reached = stretch.to;
    }
    if (!this.atEnd) yield filled(this.end, reached, this.ended ? this.size : Infinity, this.lastKey);
  }

  /** What a line has more than its first row: what was asked for, and what is left. */
  private *restOf(entry: Entry): Iterable<Entry> {
    const { row } = entry;
    if (!row || row.rest < 0 || row.end - 1 <= row.rest) return;
    let rest = this.rests.get(entry);
    if (!rest) {
      rest = { more: [], left: new Entry("rest", this, row.rest, row.end) };
      this.rests.set(entry, rest);
    }
    yield* rest.more;
    const from = rest.more.at(-1)?.to ?? row.rest;
    if (from < row.end - 1) yield filled(rest.left, from, row.end - 1, entry.key);
  }

  /** More of a long line; a row of its own. */
  extendLine(left: Entry, data: Uint8Array): void {
    for (const [entry, rest] of this.rests) {
      if (rest.left !== left) continue;
      const fold = new Fold(left.from);
      const rows = fold.write(data).added;
      const more = new Entry("line", this, left.from, left.from + data.length);
      more.text = rows[0]?.text ?? "";
      more.key = entry.key;
      this.characters += more.text.length;
      rest.more.push(more);
    }
  }

  /** Of long lines the parts that are not loaded, and in whose beginning a text is not. */
  *unshown(text: string): Iterable<[number, number]> {
    for (const { entries } of this.stretches) {
      for (const { row, text: shown } of entries) {
        if (!row || row.rest < 0 || lower(shown).includes(text)) continue;
        // What stands across the border is found, too.
        yield [Math.max(row.offset, row.rest - 4 * text.length), row.end - 1];
      }
    }
  }

  /** The line that a byte is in, if it is loaded. */
  at(offset: number): Entry | undefined {
    const stretch = this.stretches.find((one) => one.from <= offset && offset < one.to);
    return stretch?.entries.findLast((entry) => entry.from <= offset);
  }

  /** Parts that are not loaded. */
  *holes(): Iterable<[number, number]> {
    let reached = 0;
    for (const { from, to } of this.stretches) {
      if (from > reached) yield [reached, from];
      reached = to;
    }
    if (reached < this.size) yield [reached, this.size];
  }
}

/** A part of a text that does not end inside a character. */
function portion(text: string, at: number): string {
  const starts = at > 0 && /[\udc00-\udfff]/.test(text[at] ?? "") ? at + 1 : at;
  const ends = /[\udc00-\udfff]/.test(text[at + PORTION] ?? "") ? at + PORTION + 1 : at + PORTION;
  return text.slice(starts, ends);
}

function filled(hole: Entry, from: number, to: number, key: string): Entry {
  hole.from = from;
  hole.to = to;
  hole.key = key;
  hole.text = holeText(hole);
  return hole;
}

/** What was unknown at the beginning of these lines was `look`; true: it is so to the end. */
function recolour(entries: Entry[], look: Style): boolean {
  if (look === PLAIN) return false;
  for (const { row } of entries) {
    if (!row?.text) continue;
    const goesOn = row.runs.at(-1)?.style.onTop === true;
    row.runs = row.runs.map(({ to, style }) => ({ to, style: onTopOf(look, style) }));
    if (!goesOn) return false;
  }
  return true;
}
