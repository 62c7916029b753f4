// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** One row of a terminal: text in looks. As long as text only comes at its end, it is just a text. */

import { PLAIN, type Style } from "./style";
import { columns } from "./text";

/** Characters of a row; what a longer line has more is in `rest`. */
export const ROW_LIMIT = 100_000;
/** Columns that the cursor can reach: no terminal is wider, and what is drawn costs no more than they do. */
export const COLUMNS = 4096;
const TAB = 8;
/** UTF-16 units. */
const LONGEST_CELL = 32;

/** Text up to before `to` has this look. */
export interface Run {
  readonly to: number;
  readonly style: Style;
}

/** One column. A wide character or a tab is followed by columns without text. */
interface Cell {
  readonly text: string;
  readonly style: Style;
}

const BLANK: Cell = { text: " ", style: PLAIN };

export class Row {
  text = "";
  runs: Run[] = [];
  /** The time stamp that the line began with, which is not part of the text. */
  stamp = "";
  /** Whose it is, for those who show it. */
  entry: object | null = null;
  /** Byte offset in the file of the line that began this row, and after its last byte so far. */
  offset: number;
  end: number;
  /** Where the bytes begin that are not in `text`, since the line is too long; -1: all are. */
  rest = -1;
  private cells: Cell[] | null = null;
  /** What stands behind the columns. */
  private tail: { text: string; style: Style }[] = [];

  constructor(offset: number) {
    this.offset = offset;
    this.end = offset;
  }

  get empty(): boolean {
    return this.cells ? this.cells.length + this.tail.length === 0 : this.text === "";
  }

  get full(): boolean {
    return this.text.length >= ROW_LIMIT;
  }

  /** Add text at the end. */
  append(text: string, style: Style): void {
    if (this.cells) {
      if (this.tail.length) this.tail.push({ text, style });
      else this.write(this.cells.length, text, style);
      return;
    }
    const from = this.text.length;
    this.text += text;
    const last = this.runs.at(-1);
    if (style === PLAIN && !last) return;
    if (!last && from > 0) this.runs.push({ to: from, style: PLAIN });
    if (last?.style === style) this.runs.pop();
    this.runs.push({ to: this.text.length, style });
  }

  /** How many columns it has that the cursor can reach. */
  get width(): number {
    return this.columns().length;
  }

  private columns(): Cell[] {
    if (this.cells) return this.cells;
    const cells: Cell[] = [];
    this.cells = cells;
    let from = 0;
    for (const { to, style } of this.runs.length ? this.runs : [{ to: this.text.length, style: PLAIN }]) {
      this.append(this.text.slice(from, to), style);
      from = to;
    }
    return cells;
  }

  /** Write over what stands from a column on; the column after it, -1 if that is behind all of them. */
  write(column: number, text: string, style: Style): number {
    const cells = this.columns();
    let at = column;
    let written = 0;
    while (cells.length < at) cells.push(BLANK);
    for (const character of text) {
      if (at >= COLUMNS) {
        this.tail = [{ text: text.slice(written), style }];
        return -1;
      }
      written += character.length;
      const width = character === "\t" ? TAB - (at % TAB) : columns(character);
      if (width === 0) {
        this.join(at, character);
        continue;
      }
      this.part(at);
      this.part(at + width);
      cells[at] = { text: character, style };
      for (let more = 1; more < width; more += 1) cells[at + more] = { text: "", style };
      at += width;
    }
    if (at < COLUMNS) return at;
    this.tail = [];
    return -1;
  }

  /** A mark that has no column of its own. */
  private join(column: number, mark: string): void {
    const cells = this.columns();
    let at = column - 1;
    while (at > 0 && cells[at]?.text === "") at -= 1;
    const cell = cells[at];
    if (cell && cell.text.length < LONGEST_CELL) cells[at] = { text: cell.text + mark, style: cell.style };
  }

  /** What stands over the border before a column is cut: blanks take the place of both parts. */
  private part(column: number): void {
    const cells = this.columns();
    if (cells[column]?.text !== "") return;
    let first = column;
    while (first > 0 && cells[first]?.text === "") first -= 1;
    for (let at = first; at === first || cells[at]?.text === ""; at += 1) cells[at] = BLANK;
  }

  /** Blanks from a column up to before another; up to the end (Infinity), nothing is left. */
  erase(from: number, to: number): void {
    const cells = this.columns();
    this.part(from);
    this.part(to);
    if (to < cells.length || (this.tail.length && to < Infinity)) {
      cells.fill(BLANK, from, Math.min(to, cells.length));
    } else {
      cells.length = Math.min(cells.length, from);
      this.tail = [];
    }
  }

  /** Take columns out, or put blanks in: what stands behind moves. */
  shift(column: number, count: number): void {
    const cells = this.columns();
    if (column >= cells.length) return;
    this.part(column);
    if (count < 0) {
      this.part(column - count);
      cells.splice(column, -count);
    } else {
      const more = Math.min(count, Math.max(0, COLUMNS - cells.length));
      cells.splice(column, 0, ...new Array<Cell>(more).fill(BLANK));
    }
  }

  /** Have what another row has. */
  take(other: Row): void {
    this.text = other.text;
    this.runs = other.runs;
    this.stamp = other.stamp;
    this.rest = other.rest;
    this.cells = other.cells;
    this.tail = other.tail;
  }

  /** So many tab stops after a column. */
  static stop(column: number, count: number): number {
    return TAB * (Math.floor(column / TAB) + count);
  }

  /** Make `text` and `runs` of what stands in the columns. */
  settle(): void {
    if (!this.cells) return;
    const parts: string[] = [];
    this.runs = [];
    let length = 0;
    let style: Style = PLAIN;
    for (const piece of this.tail.length ? [...this.cells, ...this.tail] : this.cells) {
      if (piece.style !== style && piece.text !== "") {
        if (length > 0) this.runs.push({ to: length, style });
        style = piece.style;
      }
      parts.push(piece.text);
      length += piece.text.length;
    }
    if (length > 0 && (this.runs.length || style !== PLAIN)) this.runs.push({ to: length, style });
    this.text = parts.join("");
  }

  /** It is out of reach of the cursor: only its text is kept. */
  freeze(): void {
    this.settle();
    this.cells = null;
    this.tail = [];
  }
}
