// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** The logs of one container or request: what comes is put into files, and one view of them is shown. */

import type { ArvadosEvents, EndMessage, GapMessage, LogMessage, Subscription } from "arvados-events";
import { size, type Entry } from "../log/entries";
import type { Arrived, LogFile } from "../log/file";
import { Find } from "../log/find";
import type { Ranges } from "../log/ranges";
import { Sheet } from "../log/sheet";
import { lower } from "../terminal/text";
import { Viewer, type Picked } from "../view/viewer";
import { Attempt, MAIN, type Place, type View, type Word } from "./attempt";
import { Reading } from "./reading";

const TAIL_LINES = 2000;
/** Gaps that are told of; what is missing is a row in any case. */
const MOST_GAPS = 20;
const BATCH_MS = 120;
/** Lines that are held of a file that is not shown. */
const ASIDE = 50_000;

export interface Told {
  say(word: Word): void;
  /** Files or attempts are others now. */
  listed(): void;
  followed(following: boolean): void;
  /** How much is loaded changed, or the view. */
  counted(): void;
  linked(picked: Picked): void;
  found(): void;
  /** Lines came while the end is followed. */
  arrived(entries: Entry[]): void;
  /** Bytes came, of whichever file. */
  heard(log: LogMessage): void;
  /** Something that takes long goes on, "" if nothing does; it can be stopped. */
  busy(what: string): void;
}

export class Logs {
  readonly viewer: Viewer;
  readonly reading: Reading;
  readonly ranges: Ranges;
  attempts = new Map<string, Attempt>();
  attempt: Attempt;
  view: View = "main";
  loading = true;
  find: Find | null = null;
  /** Lines that are less bad are not shown: 1 warnings, 2 errors. */
  least = 0;
  private sought = "";
  /** It was said that what was found last is not shown. */
  private further = false;
  private readonly events: ArvadosEvents;
  private readonly uuid: string;
  private readonly told: Told;
  private place: Place;
  private subscription!: Subscription;
  private arrivals: Arrived[] = [];
  private timer: ReturnType<typeof setTimeout> | undefined;
  private newest: Attempt | null = null;
  private readonly former = new Set<Subscription>();

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
      fill: (hole, how) => (how === "last" ? this.toEnd() : void this.reading.fill(hole, how)),
      begin: () => void this.reading.toBeginning(),
      end: () => this.toEnd(),
      use: () => this.use(),
      up: () => this.viewer.leave(),
    });
    this.reading = new Reading(this.viewer, ranges, told, () => this.refresh());
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
        onattempts: ({ containers }) => this.had(containers),
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
    if (this.attempts.get(container)?.read) return;
    const attempt = new Attempt(container, n);
    attempt.read = true;
    this.newest = attempt;
    this.attempts.set(container, attempt);
    if (!this.attempt.container || this.viewer.following) this.showAttempt(attempt);
    else this.told.listed();
  }

  /** Attempts that were over before anybody looked are among them. */
  private had(containers: Record<string, number>): void {
    for (const [container, n] of Object.entries(containers)) {
      if (!this.attempts.has(container)) this.attempts.set(container, new Attempt(container, n));
    }
    this.attempts = new Map([...this.attempts].sort(([, one], [, other]) => one.n - other.n));
    this.told.listed();
  }

  /** Read what there is of an attempt that nobody watched. */
  private readFormer(attempt: Attempt): void {
    const { container } = attempt;
    if (!container || attempt.read || attempt === this.newest) return;
    attempt.read = true;
    const done = (word: Word) => {
      attempt.word = word;
      if (attempt === this.attempt) this.told.say(word);
      subscription.close();
      this.refresh();
    };
    const subscription = this.events.log(
      this.uuid,
      {
        onlog: (log) => log.container === container && this.received(log),
        ongap: (gap) => gap.container === container && this.gap(gap),
        onend: (end) => {
          this.ended(end);
          if (end.container === container && end.file === undefined) done(attempt.word);
        },
        onerror: (error) => !error.temporary && done({ text: error.message, bad: true }),
        onrevoked: ({ reason }) => done({ text: `No longer readable: ${reason}`, bad: true }),
      },
      { tail: TAIL_LINES, container },
    );
    this.former.add(subscription);
  }

  showAttempt(attempt: Attempt): void {
    this.attempt = attempt;
    this.readFormer(attempt);
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

  /** A file of the attempt that the state is of. */
  newestFile(name: string): LogFile | undefined {
    return (this.newest ?? this.attempt).files.get(name);
  }

  show(view: View): void {
    this.view = view;
    this.arrivals = [];
    const files = this.filesOf(view);
    this.viewer.names = files.length > 1;
    this.viewer.show(new Sheet(files, this.least));
    this.search(this.sought);
    this.told.listed();
    this.told.counted();
  }

  private received(log: LogMessage): void {
    const { attempt } = this;
    const whose = log.container === attempt.container ? attempt : this.attempts.get(log.container);
    if (!whose) return;
    this.told.heard(log);
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
      for (const { added, changed } of arrivals) for (const entry of [...added, ...changed]) this.find.look(entry);
      this.told.found();
    }
    if (!this.loading && this.viewer.following) this.told.arrived(arrivals.flatMap(({ added }) => added));
    this.trim();
    this.told.counted();
  }

  /** Look for a text in all that is shown, loaded or not. */
  search(text: string): void {
    this.find?.stop();
    this.sought = text;
    this.viewer.searched = text;
    this.viewer.redraw();
    this.find = text ? new Find(text, this.ranges.apart(), () => this.told.found()) : null;
    const { sheet } = this.viewer;
    if (sheet && !this.loading) void this.find?.run(sheet.entries, sheet.files);
    this.told.found();
  }

  async findNext(step: number): Promise<void> {
    const { find } = this;
    const match = await find?.next(step);
    if (find !== this.find) return;
    this.told.found();
    if (!match) return;
    await this.reading.jump(match.file, match.offset);
    const line = match.file.at(match.offset);
    const further = (line?.row?.rest ?? -1) >= 0 && !lower(line?.text ?? "").includes(lower(this.sought));
    if (further) this.told.say({ text: "It stands further on in this line: show more of it, or download it.", bad: false });
    else if (this.further) this.told.say(this.attempt.word);
    this.further = further;
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
    const bytes = typeof gap.to === "number" ? size(gap.to - (gap.from ?? 0)) : "the rest";
    const attempt = this.attempts.get(gap.container ?? "") ?? this.attempt;
    const words = gap.file ? `${bytes} of ${gap.file}: ${gap.reason}` : gap.reason;
    if (attempt.gaps.length < MOST_GAPS && !attempt.gaps.includes(words)) attempt.gaps.push(words);
    this.told.counted();
  }

  private async caughtUp(): Promise<void> {
    this.flush();
    this.loading = false;
    this.told.counted();
    if (this.sought) this.search(this.sought);
    const { file, offset, to } = this.place;
    this.place = {};
    const found = file ? this.attempt.files.get(file) : undefined;
    if (!found) return;
    this.show(found.name);
    await this.reading.jump(found, offset ?? 0, to);
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
    attempt.over = true;
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
    if (this.reading.filling || this.loading || this.viewer.following) return;
    const rows = this.viewer.shownRows();
    const hole = up ? rows.find((row) => row.kind === "hole") : rows.findLast((row) => row.kind === "hole");
    if (!hole) return;
    if (up && hole.to !== Infinity) void this.reading.fill(hole, "before");
    else if (!up && rows.indexOf(hole) > 0) void this.reading.fill(hole, "after");
  }

  /** Save what is shown, or what another view would show. */
  async save(view: View = this.view): Promise<void> {
    await this.reading.save(this.filesOf(view));
  }

  /** Stop what takes long. */
  stop(): void {
    this.reading.stop();
    this.find?.stop();
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
    else void this.reading.fill(entry, entry.from === 0 && entry.kind === "hole" ? "before" : "after");
  }

  /** A line that is chosen is named in the address, for a link to it. */
  pick(entry: Entry): void {
    this.viewer.picked = { file: entry.file, from: entry.from, to: entry.from };
    this.viewer.redraw();
    this.told.linked(this.viewer.picked);
  }

  close(): void {
    clearTimeout(this.timer);
    this.stop();
    for (const subscription of this.former) subscription.close();
    this.subscription.close();
    this.ranges.close();
    this.viewer.view.destroy();
  }
}
