// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * The rows that bytes of a log make on a terminal, in order and in any cuts.
 *
 * A terminal of endless height and width: carriage returns, erasing and relative moves of the cursor act
 * within the last rows, since progress is drawn with them; everything else that a terminal would do
 * is left out or made visible. `terminal_cases.json` says what is what; `commands/` in Python says the same.
 */

import { ROW_LIMIT, Row } from "./row";
import { PLAIN, UNKNOWN, after, onTopOf, type Style } from "./style";
import { SPECIAL, decoded, openBytes, visible } from "./text";

/** How many rows up the cursor can go. */
export const REACH = 100;
/** A terminal's width as far as moves to the right are concerned. */
const WIDEST_MOVE = 255;
const LONGEST_STRING = 4096;

const TOKEN = new RegExp(
  [
    "([^\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]+)", // text
    "\\x1b\\[([0-?]{0,64})([ -/]{0,4})([@-~])", // CSI
    `\\x1b[\\]PX^_][^\\x07\\x1b\\n]{0,${LONGEST_STRING}}(?:\\x07|\\x1b\\\\)`, // OSC, DCS and the like
    "\\x1b([ -/]{0,4}[0-OQ-WYZ\\\\`-~])", // short sequences
    "([^])", // a character that would act
  ].join("|"),
  "gy",
);
/** The beginning of a sequence whose end may follow. */
const OPEN = new RegExp(
  `\\x1b(?:\\[[0-?]{0,64}[ -/]{0,4}|[ -/]{0,4}|[\\]PX^_][^\\x07\\x1b\\n]{0,${LONGEST_STRING}}\\x1b?)?$`,
);

const STAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z /;
const STAMP_BEGUN = /^\d{1,4}(?:$|-(?:$|\d\d?(?:$|-(?:$|\d\d?(?:$|T[\d:]{0,8}(?:\.\d{0,9})?Z?$)))))/;

export interface Change {
  /** Rows that were there and look different now. */
  changed: Set<Row>;
  added: Row[];
}

export class Fold {
  /** The rows that the cursor can still reach; the last one is where text goes on. */
  private rows: Row[] = [];
  private at = 0;
  /** -1: at the end of the row. */
  private column = -1;
  private style: Style;
  private saved: { row: Row; column: number } | null = null;
  /** The cursor is somewhere on the screen where no log is: apt's bar at the bottom. */
  private away = false;
  /** First row of the screen since it was cleared; -1: it never was. */
  private top = -1;
  private held = "";
  private lineBegins = true;
  private tail = new Uint8Array(0);
  private change: Change = { changed: new Set(), added: [] };
  /** After the last byte. */
  end: number;
  private readonly start: number;

  constructor(offset: number) {
    this.end = offset;
    this.start = offset;
    this.style = offset === 0 ? PLAIN : UNKNOWN;
  }

  /** What was unknown at the beginning was this look. */
  inherit(look: Style): void {
    this.style = onTopOf(look, this.style);
  }

  /** The look of what follows. */
  get look(): Style {
    return this.style;
  }

  /** Nothing stands in the last row: it is not one to show yet. */
  get fresh(): boolean {
    const last = this.rows.at(-1);
    return last === undefined || (last.empty && last.stamp === "");
  }

  /** More of the file. `length`: bytes of a text that is all ASCII or not is told by it. */
  write(data: Uint8Array | string): Change {
    this.change = { changed: new Set(), added: [] };
    const last = this.rows.at(-1);
    if (last?.full && last.rest < 0) last.rest = this.end;
    if (typeof data === "string" && this.tail.length === 0 && /^[\x00-\x7f]*$/.test(data)) {
      this.text(data, null, data.length);
    } else {
      this.bytes(typeof data === "string" ? new TextEncoder().encode(data) : data);
    }
    return this.settled();
  }

  private settled(): Change {
    for (const row of this.change.changed) row.settle();
    for (const row of this.change.added) row.settle();
    return this.change;
  }

  /** Nothing follows: what was held back is shown. */
  close(): Change {
    this.change = { changed: new Set(), added: [] };
    const rest = this.held + decoded(this.tail);
    this.held = "";
    this.tail = new Uint8Array(0);
    if (rest) this.line(rest, true);
    return this.settled();
  }

  private bytes(data: Uint8Array): void {
    let whole = data;
    if (this.tail.length) {
      whole = new Uint8Array(this.tail.length + data.length);
      whole.set(this.tail);
      whole.set(data, this.tail.length);
    }
    const before = whole.length - data.length;
    const open = openBytes(whole);
    this.tail = whole.slice(whole.length - open);
    const ends: number[] = [];
    for (let at = whole.indexOf(10); at >= 0; at = whole.indexOf(10, at + 1)) ends.push(at - before + 1);
    this.text(decoded(whole.subarray(0, whole.length - open)), ends, data.length);
  }

  /** `ends`: where the bytes after each line end are; null: where the characters are. */
  private text(text: string, ends: number[] | null, length: number): void {
    const start = this.end;
    let from = 0;
    for (let line = 0; ; line += 1) {
      const to = text.indexOf("\n", from);
      const last = to < 0;
      const part = text.slice(from, last ? text.length : to);
      if (part || this.held) this.line(part, !last);
      if (last) break;
      from = to + 1;
      this.end = start + (ends ? (ends[line] as number) : from);
      this.lineFeed();
      this.lineBegins = true;
    }
    this.end = start + length;
    const row = this.rows.at(-1);
    if (row) row.end = this.end;
  }

  private get row(): Row {
    if (!this.rows.length) this.addRow(this.start);
    return this.rows[this.at] as Row;
  }

  private addRow(offset: number): void {
    const row = new Row(offset);
    const last = this.rows.at(-1);
    if (last) last.end = offset;
    this.rows.push(row);
    this.change.added.push(row);
    this.at = this.rows.length - 1;
    this.column = -1;
    if (this.rows.length > 2 * REACH) {
      const gone = this.rows.splice(0, this.rows.length - REACH);
      for (const one of gone) one.freeze();
      this.at -= gone.length;
      this.top = this.top < 0 ? -1 : Math.max(0, this.top - gone.length);
    }
  }

  private touch(): Row {
    const { row } = this;
    const { added, changed } = this.change;
    if (!(added.length && this.at >= this.rows.length - added.length)) changed.add(row);
    return row;
  }

  private lineFeed(): void {
    this.away = false;
    void this.row;
    if (this.at === this.rows.length - 1) this.addRow(this.end);
    else {
      this.at += 1;
      this.column = 0;
    }
  }

  /** A part of a line; what it begins with may be its time stamp. */
  private line(text: string, ended: boolean): void {
    if (!this.lineBegins) {
      this.part(text, ended);
      return;
    }
    const whole = this.held + text;
    const stamp = STAMP.exec(whole)?.[0] ?? "";
    if (!stamp && !ended && STAMP_BEGUN.test(whole)) {
      this.held = whole;
      return;
    }
    this.held = "";
    this.lineBegins = false;
    if (stamp) this.touch().stamp = stamp.slice(0, -1);
    if (whole.length > stamp.length) this.part(whole.slice(stamp.length), ended);
  }

  /** Text up to a line end or to the end of what there is. `ended`: no sequence goes on. */
  private part(text: string, ended: boolean): void {
    if (this.held === "" && this.column < 0 && !this.away && !SPECIAL.test(text)) {
      this.show(text);
      return;
    }
    let whole = this.held + text;
    this.held = "";
    const open = ended ? -1 : whole.slice(-LONGEST_STRING - 4).search(OPEN);
    if (open >= 0) {
      const from = Math.max(0, whole.length - LONGEST_STRING - 4) + open;
      this.held = whole.slice(from);
      whole = whole.slice(0, from);
    }
    for (const [all, plain, parameters, between, final, short, acting] of whole.matchAll(TOKEN)) {
      if (plain !== undefined) this.show(plain);
      else if (final !== undefined) this.sequence(parameters as string, between as string, final);
      else if (short !== undefined) this.short(short);
      else if (acting !== undefined) this.control(all);
    }
  }

  private show(text: string): void {
    if (this.away) return;
    const row = this.touch();
    if (this.column < 0) {
      if (row.rest < 0) row.append(text, this.style);
    } else if (this.column === 0 && row.empty) {
      this.column = -1;
      row.append(text, this.style);
    } else if (this.column < ROW_LIMIT) {
      this.column = row.write(this.column, text, this.style);
    }
  }

  private control(character: string): void {
    if (character === "\r") this.column = 0;
    else if (character === "\b") this.column = Math.max(0, this.where() - 1);
    else if (character === "\t") this.tab();
    else if (character !== "\x0e" && character !== "\x0f") this.show(visible(character));
  }

  private tab(): void {
    if (this.column < 0 || this.column >= this.row.width) this.show("\t");
    else this.column = Row.stop(this.column);
  }

  /** The column of the cursor. */
  private where(): number {
    return this.column < 0 ? this.row.width : this.column;
  }

  private short(sequence: string): void {
    if (sequence === "7") this.save();
    else if (sequence === "8") this.restore();
    else if (sequence === "M") this.vertical(-1);
    else if (sequence === "D") this.vertical(1);
    else if (sequence === "E") this.lineFeed();
    else if (sequence === "c") this.clear();
  }

  private save(): void {
    const column = this.where();
    this.saved = { row: this.row, column };
  }

  private restore(): void {
    this.away = false;
    const at = this.saved ? this.rows.indexOf(this.saved.row) : -1;
    if (!this.saved || at < 0) return;
    this.at = at;
    this.column = this.saved.column;
  }

  private sequence(parameters: string, between: string, final: string): void {
    if (between !== "" || /[<-?]/.test(parameters)) return;
    if (final === "m") this.style = after(this.style, parameters);
    else {
      const [first, second] = parameters.split(";").map((part) => Math.min(ROW_LIMIT, Number(part.split(":")[0])));
      this.move(final, Math.max(1, first as number), first as number, second ?? 0);
    }
  }

  private move(final: string, count: number, first: number, second: number): void {
    if (this.away && final !== "u") return;
    if (final === "A") this.vertical(-count);
    else if (final === "B") this.vertical(count);
    else if (final === "C") this.goTo(this.where() + count);
    else if (final === "D") this.goTo(this.where() - count);
    else if (final === "E") this.vertical(count, 0);
    else if (final === "F") this.vertical(-count, 0);
    else if (final === "G" || final === "`") this.goTo(count - 1);
    else if (final === "H" || final === "f") this.place(count - 1, second);
    else if (final === "J") this.eraseBelow(first);
    else if (final === "K") this.eraseInRow(first);
    else if (final === "P") this.touch().shift(this.where(), -count);
    else if (final === "@") this.touch().shift(this.where(), Math.min(count, WIDEST_MOVE));
    else if (final === "X") this.blank(count);
    else if (final === "s") this.save();
    else if (final === "u") this.restore();
  }

  private goTo(column: number): void {
    const farthest = Math.max(this.row.width, WIDEST_MOVE);
    this.column = Math.min(Math.max(0, column), farthest);
  }

  private vertical(rows: number, column = this.where()): void {
    void this.row;
    const first = Math.max(0, this.top, this.rows.length - REACH);
    this.at = Math.min(Math.max(this.at + rows, first), this.rows.length - 1);
    this.column = column;
  }

  /** An absolute place is known only on a screen that was cleared. */
  private place(row: number, second: number): void {
    if (this.saved && this.top < 0) {
      this.away = true;
      return;
    }
    if (this.top < 0) this.clear();
    this.at = Math.min(Math.max(this.top, this.rows.length - REACH) + row, this.rows.length - 1);
    this.column = Math.min(Math.max(0, second - 1), WIDEST_MOVE);
  }

  /** The screen is empty; what was on it stays as it is above. */
  private clear(): void {
    const last = this.rows.at(-1);
    if (last && !last.empty) this.addRow(last.offset);
    void this.row;
    this.at = this.rows.length - 1;
    this.top = this.at;
    this.column = 0;
  }

  private eraseBelow(how: number): void {
    if (how === 2 || how === 3) this.clear();
    if (how !== 0) return;
    this.eraseInRow(0);
    for (const row of this.rows.slice(this.at + 1)) {
      row.erase(0, Infinity);
      this.change.changed.add(row);
    }
  }

  private eraseInRow(how: number): void {
    const column = this.where();
    const row = this.touch();
    if (how === 0) row.erase(column, Infinity);
    else if (how === 1) row.erase(0, column + 1);
    else if (how === 2) row.erase(0, Infinity);
    this.column = column;
  }

  private blank(count: number): void {
    const column = this.where();
    const row = this.touch();
    if (column < row.width) row.erase(column, Math.min(column + count, row.width));
    this.column = column;
  }
}
