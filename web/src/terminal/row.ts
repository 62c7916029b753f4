// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** One row of a terminal: text in looks. As long as text only comes at its end, it is just a text. */

import { PLAIN, type Style } from "./style";
import { columns } from "./text";

/** Characters of a row; what a longer line has more is in `rest`. */
export const ROW_LIMIT = 100_000;
const TAB = 8;

/** Text up to before `to` has this look. */
export interface Run {
  readonly to: number;
  readonly style: Style;
}

/** One column. A wide character or a tab is followed by columns without text. */
interface Cell {
  text: string;
  style: Style;
}

const blank = (): Cell => ({ text: " ", style: PLAIN });

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

  constructor(offset: number) {
    this.offset = offset;
    this.end = offset;
  }

  get empty(): boolean {
    return this.cells ? this.cells.length === 0 : this.text === "";
  }

  get full(): boolean {
    return (this.cells ? this.cells.length : this.text.length) >= ROW_LIMIT;
  }

  /** Add text without tabs at the end, or with them where nobody has to know the column. */
  append(text: string, style: Style): void {
    if (this.cells) {
      this.write(this.cells.length, text, style);
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

  /** How many columns it has. */
  get width(): number {
    return this.columns().length;
  }

  private columns(): Cell[] {
    if (this.cells) return this.cells;
    const cells: Cell[] = [];
    this.cells = cells;
    let from = 0;
    for (const { to, style } of this.runs.length ? this.runs : [{ to: this.text.length, style: PLAIN }]) {
      this.write(cells.length, this.text.slice(from, to), style);
      from = to;
    }
    return cells;
  }

  /** Write over what stands from a column on; the column after it. */
  write(column: number, text: string, style: Style): number {
    const cells = this.columns();
    let at = column;
    while (cells.length < at) cells.push(blank());
    for (const character of text) {
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
    return at;
  }

  /** A mark that has no column of its own. */
  private join(column: number, mark: string): void {
    const cells = this.columns();
    let at = column - 1;
    while (at > 0 && cells[at]?.text === "") at -= 1;
    const cell = cells[at];
    if (cell && cell.text.length < 32) cell.text += mark;
  }

  /** What stands over the border before a column is cut: blanks take the place of both parts. */
  private part(column: number): void {
    const cells = this.columns();
    if (cells[column]?.text !== "") return;
    let first = column;
    while (first > 0 && cells[first]?.text === "") first -= 1;
    for (let at = first; at === first || cells[at]?.text === ""; at += 1) cells[at] = blank();
  }

  /** Blanks from a column up to before another; up to the end, nothing is left. */
  erase(from: number, to: number): void {
    const cells = this.columns();
    this.part(from);
    this.part(to);
    for (let at = from; at < Math.min(to, cells.length); at += 1) cells[at] = blank();
    if (to >= cells.length) cells.length = Math.min(cells.length, from);
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
      cells.splice(column, 0, ...Array.from({ length: Math.min(count, ROW_LIMIT) }, blank));
    }
  }

  /** The next tab stop after a column. */
  static stop(column: number): number {
    return column + TAB - (column % TAB);
  }

  /** Make `text` and `runs` of what stands in the columns. */
  settle(): void {
    if (!this.cells) return;
    const parts: string[] = [];
    this.runs = [];
    let length = 0;
    let style: Style = PLAIN;
    for (const cell of this.cells) {
      if (cell.style !== style && cell.text !== "") {
        if (length > 0) this.runs.push({ to: length, style });
        style = cell.style;
      }
      parts.push(cell.text);
      length += cell.text.length;
    }
    if (length > 0 && (this.runs.length || style !== PLAIN)) this.runs.push({ to: length, style });
    this.text = parts.join("");
  }

  /** It is out of reach of the cursor: only its text is kept. */
  freeze(): void {
    this.settle();
    this.cells = null;
  }
}
