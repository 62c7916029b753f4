// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** What is loaded of files when somebody fills a hole in them or goes somewhere, and saved. */

import type { Entry } from "../log/entries";
import type { LogFile } from "../log/file";
import { download } from "../log/download";
import { goalOf, offsetOfLine, placeOf, stampAfter, stampOf, type Clock } from "../log/places";
import { type Ranges, wholeLines } from "../log/ranges";
import type { Viewer } from "../view/viewer";
import type { Told } from "./logs";

/** What is shown more of a long line at a time. */
const REST_BYTES = 65536;
const PAGE_BYTES = 256 * 1024;

export class Reading {
  /** Something is being loaded into a hole. */
  filling = false;
  private readonly viewer: Viewer;
  private readonly ranges: Ranges;
  private readonly told: Pick<Told, "say" | "busy">;
  /** Called when more is loaded. */
  private readonly refresh: () => void;
  private working: AbortController | null = null;

  constructor(viewer: Viewer, ranges: Ranges, told: Pick<Told, "say" | "busy">, refresh: () => void) {
    this.viewer = viewer;
    this.ranges = ranges;
    this.told = told;
    this.refresh = refresh;
  }

  async fill(hole: Entry, how: "before" | "after" | "first" | "download"): Promise<void> {
    const { file } = hole;
    if (hole.kind === "rest") await this.rest(hole, how === "download");
    else if (how === "before") await this.loadBefore(file, hole.from, hole.to);
    else if (how === "first") await this.load(file, 0, Math.min(hole.to, PAGE_BYTES), hole.to);
    else await this.load(file, hole.from, Math.min(hole.to, hole.from + PAGE_BYTES), hole.to);
  }

  private async guarded(act: () => Promise<void>): Promise<void> {
    this.filling = true;
    try {
      await act();
    } catch (error) {
      this.failed(error);
    } finally {
      this.filling = false;
    }
    this.refresh();
  }

  /** The end of a hole. */
  private async loadBefore(file: LogFile, from: number, to: number): Promise<void> {
    const start = Math.max(from, to - PAGE_BYTES);
    await this.guarded(async () => {
      const bytes = await this.ranges.bytes(file, start, to);
      const [first] = wholeLines(bytes, start === from, true);
      file.insert(bytes.subarray(first), start + first);
    });
  }

  /** Bytes from where a line begins on. `limit`: what follows is loaded already. */
  private async load(file: LogFile, from: number, to: number, limit: number): Promise<void> {
    await this.guarded(async () => {
      const bytes = await this.ranges.bytes(file, from, to);
      const end = from + bytes.length >= limit || bytes.length < to - from;
      const [, last] = wholeLines(bytes, true, end);
      file.insert(bytes.subarray(0, last), from);
      file.attach();
    });
  }

  /** More of a line that is too long to be shown as a whole. */
  private async rest(entry: Entry, save: boolean): Promise<void> {
    const { file, from, to } = entry;
    if (save) {
      await this.long(`saving ${file.name}`, (progress, signal, ranges) =>
        download([file], ranges, progress, signal, from, to),
      );
      return;
    }
    await this.guarded(async () => {
      file.extendLine(entry, await this.ranges.bytes(file, from, Math.min(to, from + REST_BYTES)));
    });
  }

  /** Do what takes long, with its progress told, until it is done or stopped. */
  private async long(
    what: string,
    act: (progress: (share: number) => void, signal: AbortSignal, ranges: Ranges) => Promise<unknown>,
  ): Promise<void> {
    this.stop();
    const control = new AbortController();
    this.working = control;
    let told = 0;
    const progress = (share: number) => {
      if (performance.now() - told < 100) return;
      told = performance.now();
      this.told.busy(`${what}: ${Math.floor(100 * share)} %`);
    };
    this.told.busy(what);
    try {
      await act(progress, control.signal, this.ranges.apart());
    } catch (error) {
      if (!control.signal.aborted) this.failed(error);
    }
    if (this.working === control) {
      this.working = null;
      this.told.busy("");
    }
  }

  private failed(error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    this.told.say({ text: `Cannot be read: ${why}`, bad: true });
  }

  /** Stop what takes long. */
  stop(): void {
    this.working?.abort();
  }

  /** Save files byte for byte: one as it is, several as a tar file. */
  async save(files: readonly LogFile[]): Promise<void> {
    await this.long("saving", (progress, signal, ranges) => download(files, ranges, progress, signal));
  }

  /** Go to a line or a time, as somebody typed it; false if it is neither. */
  async goTo(text: string, files: readonly LogFile[]): Promise<boolean> {
    const goal = goalOf(text);
    if (!goal || !files.length) return false;
    if ("line" in goal) {
      const [file] = files;
      if (!file || files.length > 1) return false;
      await this.long(`looking for line ${goal.line}`, async (progress, signal, ranges) => {
        const offset = await offsetOfLine(file, goal.line, ranges, progress, signal);
        if (!signal.aborted) await this.jump(file, offset ?? file.size - 1);
      });
      return true;
    }
    await this.long("looking for that time", () => this.toTime(goal.time));
    return true;
  }

  private async toTime(clock: Clock): Promise<void> {
    this.viewer.leave();
    await this.loadBeginnings();
    const first = this.viewer.sheet?.entries.find((entry) => entry.stamp)?.stamp;
    if (!first) throw new Error("the lines have no time stamps");
    const { times, origin } = this.viewer;
    const stamp =
      times === "relative" && origin && !clock.day ? stampAfter(origin, clock.time) : stampOf(clock, first, times !== "utc");
    for (const file of this.viewer.sheet?.files ?? []) {
      const offset = await placeOf(file, stamp, this.ranges);
      const hole = [...file.holes()].find(([from, to]) => from <= offset && offset < to);
      if (hole) await this.loadAround(file, offset, hole);
    }
    const entries = this.viewer.sheet?.entries ?? [];
    const found = entries.find((entry) => entry.kind === "line" && entry.key >= stamp) ?? entries.at(-1);
    if (found) this.viewer.goTo(found);
  }

  private async loadBeginnings(): Promise<void> {
    for (const file of this.viewer.sheet?.files ?? []) {
      const [hole] = file.holes();
      if (hole && hole[0] === 0) await this.load(file, 0, Math.min(hole[1], PAGE_BYTES), hole[1]);
    }
  }

  /** Show the line that has a byte. */
  async jump(file: LogFile, offset: number, to?: number): Promise<void> {
    this.viewer.leave();
    if (!file.at(offset)) {
      const hole = [...file.holes()].find(([from, to]) => from <= offset && offset < to);
      if (hole) await this.loadAround(file, offset, hole);
    }
    const entry = file.at(offset);
    if (entry) this.viewer.goTo(entry, to);
  }

  private async loadAround(file: LogFile, offset: number, [low, high]: [number, number]): Promise<void> {
    const from = Math.max(low, offset - PAGE_BYTES / 2);
    const to = Math.min(high, offset + PAGE_BYTES / 2);
    await this.guarded(async () => {
      const bytes = await this.ranges.bytes(file, from, to);
      const [first, last] = wholeLines(bytes, from === low, to === high);
      file.insert(bytes.subarray(first, last), from + first);
    });
  }

  async toBeginning(): Promise<void> {
    this.viewer.leave();
    await this.loadBeginnings();
    const first = this.viewer.entry(0);
    if (first) this.viewer.goTo(first);
  }
}
