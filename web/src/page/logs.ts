// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** The logs of one container or request: what comes is put into files, and one view of them is shown. */

import type { ArvadosEvents, EndMessage, GapMessage, LogMessage, Subscription } from "arvados-events";
import { size, type Entry } from "../log/entries";
import { LogFile, type Arrived } from "../log/file";
import { Find } from "../log/find";
import { Ranges, wholeLines } from "../log/ranges";
import { Sheet } from "../log/sheet";
import { Viewer } from "../view/viewer";

const TAIL_LINES = 2000;
const PAGE_BYTES = 256 * 1024;
const BATCH_MS = 120;
/** Lines that are held of a file that is not shown. */
const ASIDE = 50_000;
/** What people look for first, in the order in which it is offered. */
const MAIN = ["stderr.txt", "stdout.txt", "crunch-run.txt"];

/** Which files are shown: `main`, `all`, or the name of one. */
export type View = string;

export interface Place {
  file?: string | null;
  offset?: number;
  view?: View | null;
}

export interface Word {
  text: string;
  bad: boolean;
}

/** One container, and what is held of its logs. */
export class Attempt {
  container: string | undefined;
  readonly n: number;
  readonly files = new Map<string, LogFile>();
  word: Word;

  constructor(container: string | undefined, n: number) {
    this.container = container;
    this.n = n;
    this.word = { text: n > 1 ? `Attempt ${n}` : "", bad: false };
  }

  file(name: string, epoch: number): LogFile {
    let file = this.files.get(name);
    if (!file) {
      file = new LogFile(this.container ?? "", name);
      file.epoch = epoch;
      this.files.set(name, file);
    }
    if (file.epoch !== epoch) file.clear(epoch);
    return file;
  }
}

export interface Told {
  say(word: Word): void;
  /** Files or attempts are others now. */
  listed(): void;
  followed(following: boolean): void;
  /** How much is loaded changed, or the view. */
  counted(): void;
  linked(entry: Entry): void;
  found(): void;
}

export class Logs {
  readonly viewer: Viewer;
  readonly ranges: Ranges;
  attempts = new Map<string, Attempt>();
  attempt: Attempt;
  view: View = "main";
  loading = true;
  find: Find | null = null;
  private sought = "";
  private readonly events: ArvadosEvents;
  private readonly uuid: string;
  private readonly told: Told;
  private place: Place;
  private subscription!: Subscription;
  private arrivals: Arrived[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private filling = false;

  constructor(host: HTMLElement, events: ArvadosEvents, uuid: string, ranges: Ranges, place: Place, told: Told) {
    this.events = events;
    this.uuid = uuid;
    this.ranges = ranges;
    this.place = place;
    this.told = told;
    this.attempt = this.unknown();
    if (place.view) this.view = place.view;
    this.viewer = new Viewer(host, {
      followed: (following) => told.followed(following),
      pick: (entry) => this.pick(entry),
      moved: (_, up) => this.moved(up),
      fill: (hole, how) => void this.fill(hole, how),
      begin: () => void this.toBeginning(),
      end: () => this.toEnd(),
      use: () => this.use(),
      up: () => this.viewer.leave(),
    });
    this.start();
  }

  private unknown(): Attempt {
    return new Attempt(this.uuid.includes("-dz642-") ? this.uuid : undefined, 1);
  }

  private start(): void {
    this.loading = true;
    this.attempts = new Map();
    this.showAttempt(this.unknown());
    this.subscription = this.events.log(
      this.uuid,
      {
        onlog: (log) => this.received(log),
        onattempt: ({ n, container }) => this.begin(n, container),
        ongap: (gap) => this.gap(gap),
        oncaughtup: () => void this.caughtUp(),
        onend: (end) => this.ended(end),
        onerror: (error) => this.told.say({ text: error.message, bad: true }),
        onrevoked: ({ reason }) => this.told.say({ text: `No longer readable: ${reason}`, bad: true }),
      },
      { tail: TAIL_LINES },
    );
  }

  /** The next attempt begins: it is shown, unless somebody is reading in the former one. */
  private begin(n: number, container: string): void {
    if (this.attempts.has(container)) return;
    const attempt = new Attempt(container, n);
    this.attempts.set(container, attempt);
    if (!this.attempt.container || this.viewer.following) this.showAttempt(attempt);
    else this.told.listed();
  }

  showAttempt(attempt: Attempt): void {
    this.attempt = attempt;
    this.told.say(attempt.word);
    this.show(this.view);
  }

  /** The files of a view. */
  filesOf(view: View): LogFile[] {
    const all = [...this.attempt.files.values()];
    if (view === "all") return all;
    if (view !== "main") return all.filter((file) => file.name === view);
    const main = all.filter((file) => MAIN.includes(file.name));
    return main.length ? main : all;
  }

  show(view: View): void {
    this.view = view;
    this.arrivals = [];
    const files = this.filesOf(view);
    this.viewer.names = files.length > 1;
    this.viewer.show(new Sheet(files));
    this.search(this.sought);
    this.told.listed();
    this.told.counted();
  }

  private received(log: LogMessage): void {
    const { attempt } = this;
    const whose = log.container === attempt.container ? attempt : this.attempts.get(log.container);
    if (!whose) return;
    const isNew = !whose.files.has(log.file);
    const file = whose.file(log.file, log.epoch);
    const key = this.loading ? "" : (this.viewer.sheet?.lastKey ?? "");
    const arrived = file.receive(log.text ?? log.bytes ?? "", log.offset, log.next, key);
    if (isNew && whose === attempt) {
      this.told.listed();
      if (this.filesOf(this.view).includes(file)) this.include();
    }
    if (!this.viewer.sheet?.files.has(file)) {
      if (file.lines > ASIDE) file.dropFront(file.lines - ASIDE / 2);
      return;
    }
    this.arrivals.push(arrived);
    this.timer ??= setTimeout(() => this.flush(), this.arrivals.length > 1 ? BATCH_MS : 20);
  }

  /** A file more belongs to the view. */
  private include(): void {
    const { sheet } = this.viewer;
    if (!sheet) return;
    sheet.files.clear();
    for (const file of this.filesOf(this.view)) sheet.files.add(file);
    this.viewer.names = sheet.files.size > 1;
    this.refresh();
  }

  private flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const { sheet } = this.viewer;
    const { arrivals } = this;
    this.arrivals = [];
    if (!sheet || !arrivals.length) return;
    if (this.loading || arrivals.some(({ holes }) => holes)) {
      this.refresh();
    } else {
      this.viewer.change((shown) => shown.take(arrivals));
    }
    if (this.find) {
      for (const { added } of arrivals) for (const entry of added) this.find.look(entry);
      this.told.found();
    }
    this.trim();
    this.told.counted();
  }

  /** Look for a text in all that is shown, loaded or not. */
  search(text: string): void {
    this.find?.stop();
    this.sought = text;
    this.viewer.searched = text;
    this.viewer.redraw();
    this.find = text ? new Find(text, this.ranges, () => this.told.found()) : null;
    const { sheet } = this.viewer;
    if (sheet && !this.loading) void this.find?.run(sheet.entries, sheet.files);
    this.told.found();
  }

  async findNext(step: number): Promise<void> {
    const match = this.find?.step(step);
    this.told.found();
    if (match) await this.jump(match.file, match.offset);
  }

  private trim(): void {
    const reading = this.viewer.following ? -1 : this.viewer.firstIndex;
    this.viewer.change((sheet) => sheet.trim(reading));
  }

  /** Bring what is shown up to date with what is held. */
  refresh(): void {
    this.viewer.change((sheet) => sheet.refresh());
    this.told.counted();
  }

  private gap(gap: GapMessage): void {
    const where = gap.file ? `${gap.file}: bytes ${gap.from ?? "?"} to ${gap.to ?? "?"}: ` : "";
    this.told.say({ text: `Part of the log is not to be had (${where}${gap.reason})`, bad: true });
  }

  private async caughtUp(): Promise<void> {
    this.flush();
    this.loading = false;
    this.told.counted();
    if (this.sought) this.search(this.sought);
    const { file, offset } = this.place;
    this.place = {};
    const found = file ? this.attempt.files.get(file) : undefined;
    if (!found) return;
    this.show(found.name);
    await this.jump(found, offset ?? 0);
  }

  private ended(end: EndMessage): void {
    if (end.container === undefined) return;
    const attempt = this.attempts.get(end.container) ?? this.attempt;
    if (end.file !== undefined) {
      const file = attempt.files.get(end.file);
      if (file) {
        file.size = end.size ?? file.size;
        file.ended = true;
      }
      return;
    }
    const whose = attempt.n > 1 || this.attempts.size > 1 ? `Attempt ${attempt.n}` : "The log";
    attempt.word = end.confirmed
      ? { text: `${whose} is complete, as saved.`, bad: false }
      : { text: `${whose} has ended; no saved log confirms that this is all of it.`, bad: true };
    if (attempt === this.attempt) this.told.say(attempt.word);
    this.told.counted();
  }

  /** Bytes that are there of what is shown, and of it all. */
  get counts(): { lines: number; loaded: number; size: number } {
    const files = [...(this.viewer.sheet?.files ?? [])];
    return {
      lines: files.reduce((sum, file) => sum + file.lines, 0),
      loaded: files.reduce((sum, file) => sum + file.loaded, 0),
      size: files.reduce((sum, file) => sum + file.size, 0),
    };
  }

  /** Scrolled to a hole: it is filled on the side that one comes from. */
  private moved(up: boolean): void {
    if (this.filling || this.loading || this.viewer.following) return;
    const rows = this.viewer.shownRows();
    const hole = up ? rows.find((row) => row.kind === "hole") : rows.findLast((row) => row.kind === "hole");
    if (!hole) return;
    if (up && hole.to !== Infinity) void this.fill(hole, "before");
    else if (!up && rows.indexOf(hole) > 0) void this.fill(hole, "after");
  }

  async fill(hole: Entry, how: "before" | "after" | "first" | "last" | "download"): Promise<void> {
    const { file } = hole;
    if (how === "last") this.toEnd();
    else if (hole.kind === "rest") await this.rest(hole);
    else if (how === "before") await this.loadBefore(file, hole.from, hole.to);
    else if (how === "first") await this.load(file, 0, Math.min(hole.to, PAGE_BYTES), hole.to);
    else await this.load(file, hole.from, Math.min(hole.to, hole.from + PAGE_BYTES), hole.to);
  }

  private async guarded(act: () => Promise<void>): Promise<void> {
    this.filling = true;
    try {
      await act();
    } catch (error) {
      this.told.say({ text: `Cannot be read: ${error instanceof Error ? error.message : error}`, bad: true });
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

  private async rest(entry: Entry): Promise<void> {
    this.told.say({ text: `${size(entry.to - entry.from)} of one line: download it to see all of it.`, bad: false });
  }

  /** Show the line that has a byte. */
  async jump(file: LogFile, offset: number): Promise<void> {
    this.viewer.leave();
    if (!file.at(offset)) {
      const hole = [...file.holes()].find(([from, to]) => from <= offset && offset < to);
      if (hole) await this.loadAround(file, offset, hole);
    }
    const entry = file.at(offset);
    if (entry) this.viewer.goTo(entry);
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
    for (const file of this.viewer.sheet?.files ?? []) {
      const [hole] = file.holes();
      if (hole && hole[0] === 0) await this.load(file, 0, Math.min(hole[1], PAGE_BYTES), hole[1]);
    }
    const first = this.viewer.entry(0);
    if (first) this.viewer.goTo(first);
  }

  toEnd(): void {
    if (this.filesOf(this.view).some((file) => !file.atEnd)) {
      this.subscription.close();
      this.start();
    }
    this.viewer.follow();
  }

  /** What Enter does to the row of the cursor. */
  private use(): void {
    const entry = this.viewer.current;
    if (!entry) return;
    if (entry.kind === "line") this.pick(entry);
    else void this.fill(entry, entry.from === 0 && entry.kind === "hole" ? "before" : "after");
  }

  /** A line that is chosen is named in the address, for a link to it. */
  pick(entry: Entry): void {
    this.viewer.picked = entry;
    this.viewer.redraw();
    this.told.linked(entry);
  }

  close(): void {
    clearTimeout(this.timer);
    this.find?.stop();
    this.subscription.close();
    this.ranges.close();
    this.viewer.view.destroy();
  }
}
