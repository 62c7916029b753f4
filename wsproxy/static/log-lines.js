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

const STAMP = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) /;
const encoder = new TextEncoder();

/** Bytes of a text in UTF-8; most log text is ASCII, which is counted without encoding. */
export function byteLength(text) {
  // eslint-disable-next-line no-control-regex
  return /^[\x00-\x7f]*$/.test(text) ? text.length : encoder.encode(text).length;
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

  get searchable() {
    return plain(this.shown);
  }
}

export class LogLines {
  /** At most `limit` lines are held; when more come at one end, the other end gives way. */
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
  }

  /** Add a run that begins at byte `offset`; returns the lines that are new. */
  append(text, offset, length) {
    if (offset !== this.end) this.breakLine(offset);
    const fresh = [];
    let at = offset;
    const parts = text.split("\n");
    parts.forEach((part, index) => {
      const last = index === parts.length - 1;
      if (!last || part !== "") {
        const line = this.extend(part, at);
        if (line) fresh.push(line);
        this.open = last;
      }
      at += byteLength(part) + 1;
    });
    this.end = offset + length;
    this.trimFront();
    return fresh;
  }

  /** Text of the open line grows; otherwise a new line begins. The new line, or null. */
  extend(part, offset) {
    const before = this.lines[this.lines.length - 1];
    if (this.open && before) {
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

  /** Put whole lines that end where the window begins before it; the far end gives way. */
  prepend(text, offset) {
    const older = new LogLines(this.file, Infinity);
    older.clear(offset, this.epoch);
    older.append(text, offset, byteLength(text));
    // More than half would push the lines that are being read out at the other end.
    older.lines.splice(0, Math.max(0, older.lines.length - this.limit / 2));
    this.lines = older.lines.concat(this.lines);
    this.first = this.lines.length ? this.lines[0].offset : offset;
    if (this.lines.length > this.limit) {
      const cut = this.lines.splice(this.limit);
      this.end = cut[0].offset;
      this.atEnd = false;
      this.open = false;
    }
    return older.lines.length;
  }

  trimFront() {
    const excess = this.lines.length - this.limit;
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
  }

  add(line) {
    const before = this.newest.get(line.file) ?? "";
    const key = line.stamp > before ? line.stamp : before;
    this.newest.set(line.file, key);
    let at = this.keys.length;
    while (at > 0 && this.keys[at - 1] > key) at -= 1;
    this.keys.splice(at, 0, key);
    this.lines.splice(at, 0, line);
    if (this.lines.length > this.limit) {
      this.keys.shift();
      this.lines.shift();
    }
  }

  spansOf(index) {
    return spans(this.lines[index].shown).spans;
  }
}
