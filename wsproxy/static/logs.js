// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * The log files of one container or request on the page: tabs for attempts and files, their lines, and
 * what is fetched by byte range as one scrolls.
 */

import { LogLines, MergedLines } from "./log-lines.js";
import { LogView } from "./log-view.js";

const ALL = "all files";
const TAIL_LINES = 5000;
const PAGE_BYTES = 128 * 1024;
const NEWLINE = 10;
const find = (id) => document.getElementById(id);

/** What is held of the logs of one container. */
class Attempt {
  constructor(container, n) {
    this.container = container;
    this.n = n;
    this.files = new Map();
    this.merged = new MergedLines();
    /** What there is to say about it: `{text, bad}`. */
    this.word = { text: n > 1 ? `Attempt ${n}` : "", bad: false };
  }

  linesOf(file, offset, epoch) {
    let lines = this.files.get(file);
    if (!lines) {
      lines = new LogLines(file);
      lines.clear(offset, epoch);
      this.files.set(file, lines);
    }
    if (lines.epoch !== epoch) lines.clear(offset, epoch);
    return lines;
  }
}

function joined(pieces) {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

export class Logs {
  /** `place` is `{file, offset}` of a line to show; `say(text, bad)` tells what there is to tell. */
  constructor(events, uuid, place, say) {
    this.events = events;
    this.uuid = uuid;
    this.place = place;
    this.say = say;
    this.view = new LogView(find("log"), {
      onfollow: (following) => find("follow").setAttribute("aria-pressed", following),
      ontop: () => this.loadOlder(),
      onbottom: () => this.loadNewer(),
      onpick: (line) => this.pick(line),
      isBehind: () => this.lines && !this.lines.atEnd,
    });
    this.start();
  }

  start() {
    this.attempts = new Map();
    this.showAttempt(new Attempt(this.uuid.includes("-dz642-") ? this.uuid : undefined));
    this.subscription = this.events.log(
      this.uuid,
      {
        onlog: (log) => this.received(log),
        onattempt: (attempt) => this.begin(attempt),
        ongap: (gap) => this.gap(gap),
        oncaughtup: () => this.caughtUp(),
        onend: (end) => this.ended(end),
        onerror: (error) => this.say(error.message, true),
        onrevoked: ({ reason }) => this.say(`No longer readable: ${reason}`, true),
      },
      { tail: TAIL_LINES },
    );
  }

  get lines() {
    return this.attempt.files.get(this.shown);
  }

  /** The next attempt begins: it is shown, unless somebody is reading in the former one. */
  begin({ n, container }) {
    if (this.attempts.has(container)) return;
    const attempt = new Attempt(container, n);
    this.attempts.set(container, attempt);
    if (!this.attempt.container || this.view.following) this.showAttempt(attempt);
    else this.drawAttempts();
  }

  received(log) {
    const attempt = log.container === this.attempt.container ? this.attempt : this.attempts.get(log.container);
    if (!attempt) return;
    const isNew = !attempt.files.has(log.file);
    const lines = attempt.linesOf(log.file, log.offset, log.epoch);
    if (lines.atEnd) {
      const fresh = lines.append(log.text ?? log.bytes, log.offset, log.next - log.offset);
      for (const line of fresh) attempt.merged.add(line);
    }
    if (attempt !== this.attempt) return;
    if (isNew) this.addTab(log.file);
    if (this.shown === ALL || this.shown === log.file) this.view.changed();
  }

  gap(gap) {
    const where = gap.file ? `${gap.file}: bytes ${gap.from ?? "?"} to ${gap.to ?? "?"}` : "";
    this.say(`Part of the log is not to be had (${where} ${gap.reason})`, true);
  }

  caughtUp() {
    const { file, offset } = this.place;
    if (!file || !this.attempt.files.has(file)) return;
    this.place = {};
    this.show(file);
    this.jump(file, Number(offset));
  }

  ended(end) {
    if (end.file !== undefined || end.container === undefined) return;
    const attempt = this.attempts.get(end.container) ?? this.attempt;
    const saved = end.confirmed ? "the saved log has every byte of it" : "its end is not confirmed";
    const whose = attempt.n > 1 || this.attempts.size > 1 ? `attempt ${attempt.n}` : "The log";
    attempt.word = { text: `${whose} is complete: ${saved}.`, bad: !end.confirmed };
    if (attempt === this.attempt) this.say(attempt.word.text, attempt.word.bad);
  }

  tab(text, selected, show) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.role = "tab";
    tab.textContent = text;
    tab.setAttribute("aria-selected", selected);
    tab.addEventListener("click", show);
    return tab;
  }

  addTab(file) {
    find("files").append(this.tab(file, file === this.shown, () => this.show(file)));
  }

  showAttempt(attempt) {
    this.attempt = attempt;
    this.reading?.close();
    this.reading = null;
    find("files").replaceChildren();
    for (const file of [ALL, ...attempt.files.keys()]) this.addTab(file);
    this.drawAttempts();
    this.show(ALL);
    this.say(attempt.word.text, attempt.word.bad);
  }

  drawAttempts() {
    const all = [...this.attempts.values()];
    find("attempts").hidden = all.length < 2;
    find("attempts").replaceChildren(
      ...all.map((one) => this.tab(`Attempt ${one.n}`, one === this.attempt, () => this.showAttempt(one))),
    );
  }

  show(file) {
    this.shown = file;
    for (const tab of find("files").children) {
      tab.setAttribute("aria-selected", tab.textContent === file);
    }
    this.view.show(file === ALL ? this.attempt.merged : this.lines);
  }

  /** Read bytes of a file from an offset on, up to before another; they are given to `take`. */
  read(file, epoch, from, to, take) {
    if (this.reading || from >= to) return;
    const pieces = [];
    const done = () => {
      this.reading?.close();
      this.reading = null;
      take(joined(pieces));
    };
    const { container } = this.attempt;
    this.reading = this.events.log(
      this.uuid,
      {
        onlog: (log) => {
          if (log.offset >= to || log.container !== container) return done();
          const bytes = log.bytes ?? new TextEncoder().encode(log.text);
          pieces.push(bytes.subarray(0, to - log.offset));
          return log.next >= to ? done() : undefined;
        },
        oncaughtup: done,
        onerror: done,
        onrevoked: done,
      },
      { files: [file], from: { [file]: { offset: from, epoch } }, container },
    );
  }

  loadOlder() {
    const lines = this.lines;
    if (!lines || lines.first <= 0) return;
    const from = Math.max(0, lines.first - PAGE_BYTES);
    const { first, epoch, file } = lines;
    this.read(file, epoch, from, first, (bytes) => {
      if (lines.first !== first || bytes.length !== first - from) return;
      // The page begins somewhere in a line, unless it begins with the file. A line that fills it is cut.
      const after = from === 0 ? 0 : bytes.indexOf(NEWLINE) + 1;
      const cut = after < bytes.length ? after : 0;
      const added = lines.prepend(bytes.subarray(cut), from + cut, bytes.length - cut);
      if (this.lines === lines) this.view.changed(added);
    });
  }

  loadNewer(then = () => {}) {
    const lines = this.lines;
    if (!lines || lines.atEnd) return;
    const { end, epoch, file } = lines;
    this.read(file, epoch, end, end + PAGE_BYTES, (bytes) => {
      if (lines.end !== end) return;
      if (!bytes.length) lines.atEnd = true;
      else lines.append(bytes, end, bytes.length);
      if (this.lines === lines) this.view.changed();
      then();
    });
  }

  jump(file, offset) {
    const lines = this.lines;
    const go = () => {
      const index = lines.lines.findLastIndex((line) => line.offset <= offset);
      this.view.layOut();
      if (index >= 0) this.view.goTo(index);
    };
    if (offset >= lines.first && offset < lines.end) {
      go();
      return;
    }
    lines.clear(offset, lines.epoch);
    lines.atEnd = false;
    this.view.setFollowing(false);
    this.loadNewer(() => {
      go();
      this.loadOlder();
    });
  }

  /** A line that is clicked is named in the address, for a link to it. */
  pick(line) {
    if (!line) return;
    this.view.picked = line;
    this.view.draw();
    const link = new URLSearchParams({ request: this.uuid, file: line.file, offset: line.offset });
    history.replaceState(null, "", `#${link}`);
  }

  follow() {
    if (this.lines && !this.lines.atEnd) {
      this.subscription.close();
      this.place = {};
      this.start();
    }
    this.view.toEnd();
  }

  close() {
    this.subscription.close();
    this.reading?.close();
  }
}
