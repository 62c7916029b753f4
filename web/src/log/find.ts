// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Find a text in whole log files, also where they are not loaded: counted, with progress, to be stopped. */

import { ASCII, lower, withoutSequences } from "../terminal/text";
import type { Entry } from "./entries";
import type { LogFile } from "./file";
import { bytesOf, type Ranges } from "./ranges";

/** Lines that one can go to; more are counted. */
const MOST = 10_000;
const LONGEST_CARRIED = 1024 * 1024;
/** Characters of a part of a long line, besides those of the text, that are looked at with the next one. */
const ACROSS = 1024;
/** Milliseconds of looking through loaded lines before the page gets its turn. */
const SLICE_MS = 8;
const STAMP = /^\d{4}-\d\d-\d\dT[\d:.]+Z/;
const STAMP_LENGTH = 30;

export interface Match {
  file: LogFile;
  offset: number;
  key: string;
}

/** The lines in text that comes in pieces, those with `sought` in them told to `hit`. */
export class Scan {
  private readonly sought: string;
  private readonly hit: (offset: number, line: string) => void;
  private carried = "";
  private offset: number;
  /** The line that goes on, where its beginning was looked through. */
  private line: { offset: number; text: string; told: boolean } | null = null;

  /** `sought` is as `lower` has it; `offset`: of the first byte. */
  constructor(sought: string, offset: number, hit: (offset: number, line: string) => void) {
    this.sought = sought;
    this.offset = offset;
    this.hit = hit;
  }

  add(data: string | Uint8Array): void {
    const text = this.carried + (typeof data === "string" ? data : new TextDecoder().decode(data));
    const end = text.lastIndexOf("\n") + 1;
    if (end > 0) {
      this.carried = text.slice(end);
      this.lines(text.slice(0, end));
      this.line = null;
    } else if (text.length < LONGEST_CARRIED) {
      this.carried = text;
    } else {
      this.line ??= { offset: this.offset, text: text.slice(0, STAMP_LENGTH), told: false };
      this.carried = text.slice(-this.sought.length - ACROSS);
      this.lines(text);
      this.offset -= bytesOf(this.carried).length;
    }
  }

  private tell(offset: number, line: string): void {
    const { line: begun } = this;
    if (!begun || offset > this.offset) this.hit(offset, line);
    else if (!begun.told) this.hit(begun.offset, begun.text);
    if (begun && offset === this.offset) begun.told = true;
  }

  end(): void {
    if (this.carried) this.lines(this.carried);
    this.carried = "";
  }

  private lines(text: string): void {
    const ascii = ASCII.test(text);
    const length = (part: string) => (ascii ? part.length : bytesOf(part).length);
    if (text.includes("\x1b")) {
      let at = this.offset;
      for (const line of text.split("\n")) {
        if (lower(withoutSequences(line)).includes(this.sought)) this.tell(at, line);
        at += length(line) + 1;
      }
    } else {
      const lowered = lower(text);
      let counted = 0;
      let at = this.offset;
      for (let found = lowered.indexOf(this.sought); found >= 0; ) {
        const start = text.lastIndexOf("\n", found) + 1;
        const stop = text.indexOf("\n", found);
        const end = stop < 0 ? text.length : stop;
        at += length(text.slice(counted, start));
        counted = start;
        this.tell(at, text.slice(start, end));
        found = lowered.indexOf(this.sought, end);
      }
    }
    this.offset += length(text);
  }
}

export class Find {
  count = 0;
  matches: Match[] = [];
  at = -1;
  /** What is looked through now, and how much of all bytes has been; "" if all is. */
  progress = "";
  stopped = false;
  private readonly text: string;
  private readonly ranges: Ranges;
  private readonly changed: () => void;
  private readonly control = new AbortController();
  private sorted = true;
  private told = 0;
  private running = false;
  private waiting: (() => void) | null = null;
  /** Lines that are counted: one that goes on is looked at again. */
  private readonly counted = new WeakSet<Entry>();

  constructor(text: string, ranges: Ranges, changed: () => void) {
    this.text = lower(text);
    this.ranges = ranges;
    this.changed = changed;
  }

  /** Look through what is loaded, and then through the rest. */
  async run(entries: readonly Entry[], files: Iterable<LogFile>): Promise<void> {
    this.running = true;
    const holes = [...files].flatMap((file) =>
      [...file.holes(), ...file.unshown(this.text)].map(([from, to]) => ({ file, from, to })),
    );
    const all = holes.reduce((sum, hole) => sum + hole.to - hole.from, 0);
    await this.loaded(entries.slice());
    let done = 0;
    for (const { file, from, to } of holes) {
      if (this.control.signal.aborted) break;
      const tell = (reached: number) => {
        const share = Math.floor((100 * (done + reached - from)) / all);
        this.tell(`${share} % of ${file.name}`);
      };
      tell(from);
      await this.hole(file, from, to, tell).catch(() => this.stop());
      done += to - from;
    }
    this.progress = "";
    this.running = false;
    this.waiting?.();
    this.changed();
  }

  /** What is not loaded is looked through where it is, or read if that cannot be. */
  private async hole(file: LogFile, from: number, to: number, tell: (reached: number) => void): Promise<void> {
    const { signal } = this.control;
    let count = 0;
    const there = await this.ranges.search(file, this.text, from, to, signal, (step) => {
      for (const [offset, key] of step.lines) this.add({ file, offset, key });
      this.count += step.count - count - step.lines.length;
      count = step.count;
      tell(step.at);
    });
    if (there || signal.aborted) return;
    const scan = new Scan(this.text, from, (offset, line) => this.hit(file, offset, line));
    await this.ranges.read(file, from, to, (data, _, next) => {
      scan.add(data);
      tell(next);
    }, signal);
    scan.end();
  }

  private tell(progress: string): void {
    this.progress = progress;
    if (performance.now() - this.told < 100) return;
    this.told = performance.now();
    this.changed();
  }

  private async loaded(entries: readonly Entry[]): Promise<void> {
    let since = performance.now();
    for (const entry of entries) {
      this.look(entry);
      if (performance.now() - since < SLICE_MS) continue;
      await new Promise((resolve) => setTimeout(resolve));
      if (this.control.signal.aborted) return;
      since = performance.now();
    }
    this.changed();
  }

  /** A line that came meanwhile, or more of one. What was shown more of a long one has no row: all of it is read. */
  look(entry: Entry): void {
    if (!entry.row || this.counted.has(entry) || !lower(entry.text).includes(this.text)) return;
    this.counted.add(entry);
    this.add({ file: entry.file, offset: entry.from, key: entry.key });
  }

  private hit(file: LogFile, offset: number, line: string): void {
    this.add({ file, offset, key: STAMP.exec(line)?.[0] ?? "" });
  }

  private add(match: Match): void {
    this.count += 1;
    if (this.matches.length >= MOST) return;
    this.matches.push(match);
    this.sorted = false;
    this.waiting?.();
  }

  /** As `step`; where nothing has been found yet it is waited for. */
  async next(step: number): Promise<Match | undefined> {
    if (!this.matches.length && this.running) await new Promise<void>((resolve) => (this.waiting = resolve));
    return this.step(step);
  }

  /** The next or former line that was found. */
  step(step: number): Match | undefined {
    if (!this.matches.length) return undefined;
    const now = this.matches[this.at];
    if (!this.sorted) {
      this.matches.sort((one, other) =>
        one.file === other.file ? one.offset - other.offset : one.key < other.key ? -1 : Number(one.key > other.key),
      );
      this.sorted = true;
      if (now) this.at = this.matches.indexOf(now);
    }
    const length = this.matches.length;
    this.at = now || step > 0 ? (this.at + step + length) % length : length - 1;
    return this.matches[this.at];
  }

  stop(): void {
    if (this.progress) this.stopped = true;
    this.waiting?.();
    this.control.abort();
  }
}
