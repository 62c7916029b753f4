// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * The rows of a terminal of endless height and width, and its cursor: carriage returns, erasing and relative
 * moves act within the last rows, since progress is drawn with them.
 */

import { COLUMNS, ROW_LIMIT, Row } from "./row";
import { PLAIN, after, type Style } from "./style";
import { columns, visible } from "./text";

/** How many rows up the cursor can go. */
export const REACH = 100;
/** A terminal's width as far as moves to the right are concerned. */
const WIDEST_MOVE = 255;

export interface Change {
  /** Rows that were there and look different now. */
  changed: Set<Row>;
  added: Row[];
}

export class Screen {
  /** The rows that the cursor can still reach; the last one is where text goes on. */
  rows: Row[] = [];
  style: Style;
  change: Change = { changed: new Set(), added: [] };
  private at = 0;
  /** -1: at the end of the row. */
  private column = -1;
  private saved: { row: Row; column: number; style: Style } | null = null;
  /** The cursor is somewhere on the screen where no log is: apt's bar at the bottom. */
  private away = false;
  /** First row of the screen since it was cleared; -1: it never was. */
  private top = -1;
  /** Text moves what stands behind the cursor. */
  private inserts = false;
  /** What was shown last: the character that can be repeated is at its end. */
  private shown = "";
  private readonly start: number;

  constructor(offset: number, style: Style) {
    this.start = offset;
    this.style = style;
  }

  /** Nothing stands in the last row: it is not one to show yet. */
  get fresh(): boolean {
    const last = this.rows.at(-1);
    return last === undefined || (last.empty && last.stamp === "");
  }

  /** Text is added at the end of the row. */
  get adds(): boolean {
    return this.column < 0 && !this.away;
  }

  settle(): Change {
    for (const row of this.change.changed) row.settle();
    for (const row of this.change.added) row.settle();
    return this.change;
  }

  private get row(): Row {
    if (!this.rows.length) this.addRow(this.start);
    return this.rows[this.at] as Row;
  }

  /** Where the line of the last row begins. */
  private get line(): number {
    return this.rows.at(-1)?.offset ?? this.start;
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

  touch(): Row {
    const { row } = this;
    const { added, changed } = this.change;
    if (!(added.length && this.at >= this.rows.length - added.length)) changed.add(row);
    return row;
  }

  /** `offset`: of the line that begins. */
  lineFeed(offset: number): void {
    this.away = false;
    void this.row;
    if (this.at === this.rows.length - 1) this.addRow(offset);
    else {
      this.at += 1;
      this.column = 0;
    }
  }

  show(text: string): void {
    if (this.away) return;
    this.shown = text;
    const row = this.touch();
    if (this.column >= COLUMNS || (this.column === 0 && row.empty)) this.column = -1;
    if (this.column < 0) {
      if (row.rest < 0) row.append(text, this.style);
      return;
    }
    if (this.inserts) row.shift(this.column, widthOf(text));
    this.column = row.write(this.column, text, this.style);
  }

  control(character: string): void {
    if (character === "\r") this.column = 0;
    else if (character === "\b") this.column = Math.max(0, this.where() - 1);
    else if (character === "\t") this.tab();
    else if (character !== "\x0e" && character !== "\x0f") this.show(visible(character));
  }

  private tab(): void {
    if (this.column < 0 || this.column >= this.width) this.show("\t");
    else this.column = Row.stop(this.column, 1);
  }

  /** The column of the cursor. */
  private where(): number {
    return this.column < 0 ? this.width : this.column;
  }

  /** Of the row; to know it is to write it: marks that join nothing are left out. */
  private get width(): number {
    return this.touch().width;
  }

  short(sequence: string): void {
    if (sequence === "7") this.save();
    else if (sequence === "8") this.restore();
    else if (sequence === "M") this.vertical(-1);
    else if (sequence === "D") this.index();
    else if (sequence === "E") this.lineFeed(this.line);
    else if (sequence === "c") this.reset();
  }

  /** One row down, also where there is none yet. */
  private index(): void {
    const column = this.where();
    if (this.at === this.rows.length - 1) this.addRow(this.line);
    else this.at += 1;
    this.column = column;
  }

  /** As a terminal that is switched on, with what was there above it. */
  private reset(): void {
    this.away = false;
    this.soften();
    this.clear();
  }

  private soften(): void {
    this.style = PLAIN;
    this.inserts = false;
    this.saved = null;
  }

  private save(): void {
    const column = this.where();
    this.saved = { row: this.row, column, style: this.style };
  }

  private restore(): void {
    this.away = false;
    const at = this.saved ? this.rows.indexOf(this.saved.row) : -1;
    if (!this.saved || at < 0) return;
    this.at = at;
    this.column = this.saved.column;
    this.style = this.saved.style;
  }

  sequence(parameters: string, between: string, final: string): void {
    if (between === "!" && final === "p") this.soften();
    if (between !== "") return;
    if (/[<-?]/.test(parameters)) {
      if (/^\?(?:.*;)?(?:47|1047|1049)(?:;|$)/.test(parameters) && /[hl]/.test(final)) this.another();
    } else if (final === "m") this.style = after(this.style, parameters);
    else {
      const [first, second] = parameters.split(";").map((part) => Math.min(ROW_LIMIT, Number(part.split(":")[0])));
      this.move(final, Math.max(1, first as number), first as number, second ?? 0);
    }
  }

  /** The other screen of a terminal, or back from it: what was shown stays above, also what a terminal takes away. */
  private another(): void {
    this.away = false;
    this.saved = null;
    this.clear();
    this.top = -1;
  }

  private move(final: string, count: number, first: number, second: number): void {
    if (this.away && final !== "u") return;
    if (final === "A") this.vertical(-count);
    else if (final === "B" || final === "e") this.vertical(count);
    else if (final === "C" || final === "a") this.goTo(this.where() + count);
    else if (final === "D") this.goTo(this.where() - count);
    else if (final === "E") this.vertical(count, 0);
    else if (final === "F") this.vertical(-count, 0);
    else if (final === "G" || final === "`") this.goTo(count - 1);
    else if (final === "I") this.goTo(Row.stop(this.where(), count));
    else if (final === "Z") this.goTo(Row.stop(this.where() - 1, 1 - count));
    else if (final === "H" || final === "f") this.place(count - 1, second);
    else if (final === "d" && this.top >= 0) this.place(count - 1, this.where() + 1);
    else if (final === "J") this.eraseScreen(first);
    else if (final === "K") this.eraseInRow(first);
    else if (final === "s") this.save();
    else if (final === "u") this.restore();
    else if (final === "h" || final === "l") this.inserts = first === 4 ? final === "h" : this.inserts;
    else this.edit(final, count);
  }

  private edit(final: string, count: number): void {
    if (final === "L") this.insertRows(count);
    else if (final === "M") this.deleteRows(count);
    else if (final === "b") this.repeat(count);
    else if (final === "P" || final === "@" || final === "X") {
      const column = this.where();
      const row = this.touch();
      if (final === "X") row.erase(column, column + count);
      else row.shift(column, final === "P" ? -count : Math.min(count, WIDEST_MOVE));
      this.column = column;
    }
  }

  /** The character before it, again. */
  private repeat(count: number): void {
    const last = [...this.shown.slice(-2)].at(-1);
    if (last !== undefined && this.width < COLUMNS) this.show(last.repeat(Math.min(count, WIDEST_MOVE)));
  }

  /** Blank rows at the cursor: what stands from there on goes down, as far as the cursor reaches. */
  private insertRows(count: number): void {
    const { row } = this;
    const more = Math.min(count, REACH - (this.rows.length - this.at));
    if (more <= 0) return;
    for (let n = 0; n < more; n += 1) this.addRow(this.line);
    this.at = this.rows.indexOf(row);
    for (let to = this.rows.length - 1; to >= this.at; to -= 1) this.replace(to, to - more, this.at);
    this.column = 0;
  }

  /** What stands below comes up. */
  private deleteRows(count: number): void {
    void this.row;
    for (let to = this.at; to < this.rows.length; to += 1) this.replace(to, to + count, this.at);
    this.column = 0;
  }

  /** A row has what another one has that is not before `first`, or nothing. */
  private replace(to: number, from: number, first: number): void {
    const row = this.rows[to] as Row;
    row.take((from >= first && this.rows[from]) || new Row(row.offset));
    this.change.changed.add(row);
  }

  private goTo(column: number): void {
    const farthest = Math.max(this.width, WIDEST_MOVE);
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
    const below = Math.max(this.top, this.rows.length - REACH) + row - (this.rows.length - 1);
    // No screen is that high: its last row is meant.
    for (let n = 0; row < REACH && n < below; n += 1) this.addRow(this.line);
    this.at = this.rows.length - 1 + Math.min(0, below);
    this.column = Math.min(Math.max(0, second - 1), WIDEST_MOVE);
  }

  /** The screen is empty; what was on it stays as it is above. */
  private clear(): void {
    const last = this.rows.at(-1);
    if (last && !last.empty) this.addRow(this.line);
    void this.row;
    this.at = this.rows.length - 1;
    this.top = this.at;
    this.column = 0;
  }

  private eraseScreen(how: number): void {
    if (how === 2 || how === 3) this.clear();
    if (how > 1) return;
    this.eraseInRow(how);
    // How far a screen goes up is known of one that was cleared.
    const others = how === 0 ? this.rows.slice(this.at + 1) : this.rows.slice(this.top < 0 ? this.at : this.top, this.at);
    for (const row of others) {
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
}

function widthOf(text: string): number {
  let width = 0;
  for (const character of text) width += columns(character);
  return width;
}
