// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * The lines of one log file as far as they are held: a window that grows at both ends and is bounded.
 *
 * Text comes in runs that know their byte offset; lines are what stands between line ends. A run may
 * end inside a line: that line is held open and shown as it is. Of a line that a program rewrites with
 * carriage returns, what would stand on a terminal is shown.
 */

import { plain, spans } from "./ansi.js";

/** Characters of a line; what is longer, for instance progress without a line end, goes on in another. */
const LINE_LIMIT = 256 * 1024;
/** Characters that are held of a file, or of all files in one list. */
const TEXT_LIMIT = 16 * 1024 * 1024;
/** Lines beyond the limit that are let go at once: adding up what is held is not for every line. */
const SLACK = 1000;
const STAMP = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) /;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Bytes of a text in UTF-8; most log text is ASCII, which is counted without encoding. */
export function byteLength(text) {
  // eslint-disable-next-line no-control-regex
  return /^[\x00-\x7f]*$/.test(text) ? text.length : encoder.encode(text).length;
}

/** What stands between line ends in a text or in bytes: `{text, bytes, whole}`, the last one not whole. */
function* partsOf(run) {
  if (typeof run === "string") {
    const parts = run.split("\n");
    for (let index = 0; index < parts.length; index += 1) {
      const text = parts[index];
      yield { text, bytes: byteLength(text), whole: index < parts.length - 1 };
    }
    return;
  }
  let from = 0;
  for (let to = run.indexOf(10); to >= 0; to = run.indexOf(10, from)) {
    yield { text: decoder.decode(run.subarray(from, to)), bytes: to - from, whole: true };
    from = to + 1;
  }
  yield { text: decoder.decode(run.subarray(from)), bytes: run.length - from, whole: false };
}

/** How many lines at the front are too many, or too long together. */
function surplus(lines, limit) {
  let count = Math.max(0, lines.length - limit);
  let size = lines.reduce((sum, line) => sum + line.text.length, 0);
  for (let index = 0; index < count; index += 1) size -= lines[index].text.length;
  for (; size > TEXT_LIMIT && count < lines.length - 1; count += 1) size -= lines[count].text.length;
  return count;
}

/** What a terminal shows of a line with carriage returns: the last that was written over it. */
export function overwritten(line) {
  if (!line.includes("\r")) return line;
  const parts = line.split("\r").filter((part) => part !== "");
  return parts.length ? parts[parts.length - 1] : "";
}

/** A line: byte offset in the file, text as received, time stamp (or that of the line before). */
class Line {
  constructor(file, offset, text, stamp) {
    this.file = file;
    this.offset = offset;
    this.text = text;
    this.stamp = STAMP.exec(text)?.[1] ?? stamp;
  }

  get shown() {
    return overwritten(this.text);
  }

  /** The text without colours; worked out once, since every line is measured at each layout. */
  get searchable() {
    if (this.plainOf !== this.text) {
      this.plainOf = this.text;
      this.plainText = plain(this.shown);
    }
    return this.plainText;
  }
}

export class LogLines {
  /** At most `limit` lines are held, and 16 Mi characters; the other end gives way to what comes. */
  constructor(file, limit = 20_000) {
    this.file = file;
    this.limit = limit;
    this.clear(0, 0);
  }

  /** Begin anew at a byte offset of an epoch of the file. */
  clear(offset, epoch) {
    this.lines = [];
    this.first = offset;
    this.end = offset;
    this.epoch = epoch;
    this.open = false;
    /** Whether the newest bytes of the file are held; if not, live text is not added. */
    this.atEnd = true;
    this.states = new WeakMap();
    this.added = 0;
  }

  /** Add a run, text or bytes, that begins at byte `offset`; returns the lines that are new. */
  append(run, offset, length) {
    if (offset !== this.end) this.breakLine(offset);
    const fresh = [];
    let at = offset;
    for (const { text, bytes, whole } of partsOf(run)) {
      if (whole || text !== "") {
        const line = this.extend(text, at);
        if (line) fresh.push(line);
        this.open = !whole;
      }
      at += bytes + 1;
    }
    this.end = offset + length;
    this.added += length;
    this.trimFront();
    return fresh;
  }

  /** Text of the open line grows; otherwise a new line begins. The new line, or null. */
  extend(part, offset) {
    const before = this.lines[this.lines.length - 1];
    if (this.open && before && before.text.length < LINE_LIMIT) {
      before.text += part;
      return null;
    }
    const line = new Line(this.file, offset, part, before?.stamp ?? "");
    this.lines.push(line);
    return line;
  }

  /** What follows does not join what is held. */
  breakLine(offset) {
    this.open = false;
    if (!this.lines.length) this.first = offset;
  }

  /** Put a run that ends where the window begins before it; the far end gives way. */
  prepend(run, offset, length) {
    const older = new LogLines(this.file, Infinity);
    older.clear(offset, this.epoch);
    older.append(run, offset, length);
    // More than half would push the lines that are being read out at the other end.
    older.lines.splice(0, Math.max(0, older.lines.length - this.limit / 2));
    this.lines = older.lines.concat(this.lines);
    this.first = this.lines.length ? this.lines[0].offset : offset;
    const excess = surplus([...this.lines].reverse(), this.limit);
    if (excess > 0) {
      const cut = this.lines.splice(this.lines.length - excess);
      this.end = cut[0].offset;
      this.atEnd = false;
      this.open = false;
    }
    return older.lines.length;
  }

  trimFront() {
    if (this.lines.length <= this.limit + SLACK && this.added < TEXT_LIMIT / 4) return;
    this.added = 0;
    const excess = surplus(this.lines, this.limit);
    if (excess <= 0) return;
    this.lines.splice(0, excess);
    this.first = this.lines[0].offset;
  }

  /** Coloured spans of the `index`-th line; colours go on from the lines before it that are held. */
  spansOf(index) {
    let from = index;
    while (from > 0 && from > index - 500 && !this.states.has(this.lines[from - 1])) from -= 1;
    let state = from > 0 ? this.states.get(this.lines[from - 1]) : undefined;
    let found = [];
    for (let at = from; at <= index; at += 1) {
      const line = this.lines[at];
      const result = spans(line.shown, state);
      ({ spans: found, state } = result);
      if (!(this.open && at === this.lines.length - 1)) this.states.set(line, state);
    }
    return found;
  }
}

/**
 * Lines of several files as one list by time stamp. No file's own order is ever changed: a line counts
 * as no earlier than the line before it in its file.
 */
export class MergedLines {
  constructor(limit = 20_000) {
    this.limit = limit;
    this.lines = [];
    this.keys = [];
    this.newest = new Map();
    this.added = 0;
  }

  add(line) {
    const before = this.newest.get(line.file) ?? "";
    const key = line.stamp > before ? line.stamp : before;
    this.newest.set(line.file, key);
    let at = this.keys.length;
    while (at > 0 && this.keys[at - 1] > key) at -= 1;
    this.keys.splice(at, 0, key);
    this.lines.splice(at, 0, line);
    this.added += 1;
    if (this.lines.length > this.limit + SLACK || this.added > SLACK) this.trim();
  }

  trim() {
    this.added = 0;
    const excess = surplus(this.lines, this.limit);
    this.keys.splice(0, excess);
    this.lines.splice(0, excess);
  }

  spansOf(index) {
    return spans(this.lines[index].shown).spans;
  }
}
