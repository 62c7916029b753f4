// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * The rows that bytes of a log make on a terminal, in order and in any cuts.
 *
 * What draws within the last rows acts (`screen.ts`); everything else that a terminal would do is left out or
 * made visible. `terminal_cases.json` says what is what; `commands/` in Python says the same.
 */

import type { Row } from "./row";
import { Screen, type Change } from "./screen";
import { PLAIN, UNKNOWN, onTopOf, type Style } from "./style";
import { ASCII, SPECIAL, decoded, openBytes } from "./text";
import { STAMP, STAMP_BEGUN, TOKEN, begun } from "./tokens";

export class Fold {
  private readonly screen: Screen;
  private held = "";
  private lineBegins = true;
  private tail = new Uint8Array(0);
  /** After the last byte. */
  end: number;

  constructor(offset: number) {
    this.end = offset;
    this.screen = new Screen(offset, offset === 0 ? PLAIN : UNKNOWN);
  }

  /** What was unknown at the beginning was this look. */
  inherit(look: Style): void {
    this.screen.style = onTopOf(look, this.screen.style);
  }

  /** The look of what follows. */
  get look(): Style {
    return this.screen.style;
  }

  /** Nothing stands in the last row: it is not one to show yet. */
  get fresh(): boolean {
    return this.screen.fresh;
  }

  private get last(): Row | undefined {
    return this.screen.rows.at(-1);
  }

  /** More of the file. */
  write(data: Uint8Array | string): Change {
    this.screen.change = { changed: new Set(), added: [] };
    if (this.last?.full && this.last.rest < 0) this.last.rest = this.end;
    if (typeof data === "string" && this.tail.length === 0 && ASCII.test(data)) {
      this.text(data, null, data.length);
    } else {
      this.bytes(typeof data === "string" ? new TextEncoder().encode(data) : data);
    }
    return this.screen.settle();
  }

  /** Nothing follows: what was held back is shown. */
  close(): Change {
    this.screen.change = { changed: new Set(), added: [] };
    const rest = this.held + decoded(this.tail);
    this.held = "";
    this.tail = new Uint8Array(0);
    if (rest) this.line(rest, true);
    return this.screen.settle();
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
      this.screen.lineFeed(this.end);
      this.lineBegins = true;
    }
    this.end = start + length;
    if (this.last) this.last.end = this.end;
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
    if (stamp) this.screen.touch().stamp = stamp.slice(0, -1);
    if (whole.length > stamp.length) this.part(whole.slice(stamp.length), ended);
  }

  /** Text up to a line end or to the end of what there is. `ended`: no sequence goes on. */
  private part(text: string, ended: boolean): void {
    if (this.held === "" && this.screen.adds && !SPECIAL.test(text)) {
      this.screen.show(text);
      return;
    }
    const whole = this.held + text;
    const end = ended ? whole.length : begun(whole);
    this.held = whole.slice(end);
    for (const found of whole.matchAll(TOKEN)) {
      if (found.index >= end) break;
      const [all, plain, parameters, between, final, short, acting] = found;
      if (plain !== undefined) this.screen.show(plain);
      else if (final !== undefined) this.screen.sequence(parameters as string, between as string, final);
      else if (short !== undefined) this.screen.short(short);
      else if (acting !== undefined) this.screen.control(all);
    }
  }
}
