// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * The page to watch a container request: state and progress, and the log lines of all files, live.
 *
 * A link names what to watch in its fragment, which no browser sends to a server:
 * `#request=<uuid>&token=<token>` and, for a place in a log, `&file=<name>&offset=<byte>`. The token is
 * taken out of the address at once and kept for this tab only.
 */

import { ArvadosEvents } from "./arvados-events.js";
import { LogLines, MergedLines } from "./log-lines.js";
import { LogView } from "./log-view.js";

const ALL = "all files";
const TAIL_LINES = 5000;
const PAGE_BYTES = 128 * 1024;
const find = (id) => document.getElementById(id);
const decoder = new TextDecoder();

function streamUrl() {
  const url = new URL("v1/stream", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url.href;
}

/** The log files of one container or request: tabs, lines, and what is fetched as one scrolls. */
class Logs {
  constructor(events, uuid, place) {
    this.events = events;
    this.uuid = uuid;
    this.place = place;
    this.files = new Map();
    this.shown = ALL;
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
    this.merged = new MergedLines();
    this.files.clear();
    find("files").replaceChildren();
    this.addTab(ALL);
    this.show(ALL);
    this.subscription = this.events.log(
      this.uuid,
      {
        onlog: (log) => this.received(log),
        onattempt: (attempt) => this.attempt(attempt),
        ongap: (gap) => this.gap(gap),
        oncaughtup: () => this.caughtUp(),
        onend: (end) => this.ended(end),
        onerror: (error) => say(error.message, true),
        onrevoked: ({ reason }) => say(`No longer readable: ${reason}`, true),
      },
      { tail: TAIL_LINES },
    );
  }

  get lines() {
    return this.files.get(this.shown);
  }

  attempt({ n, container }) {
    this.container = container;
    if (this.n !== undefined && this.n !== n) {
      this.files.clear();
      find("files").replaceChildren();
      this.merged = new MergedLines();
      this.addTab(ALL);
      this.show(ALL);
    }
    this.n = n;
    say(n > 1 ? `Attempt ${n}` : "");
  }

  linesOf(file, offset, epoch) {
    let lines = this.files.get(file);
    if (!lines) {
      lines = new LogLines(file);
      lines.clear(offset, epoch);
      this.files.set(file, lines);
      this.addTab(file);
    }
    if (lines.epoch !== epoch) lines.clear(offset, epoch);
    return lines;
  }

  received(log) {
    const lines = this.linesOf(log.file, log.offset, log.epoch);
    const text = log.text ?? decoder.decode(log.bytes);
    if (lines.atEnd) {
      for (const line of lines.append(text, log.offset, log.next - log.offset)) this.merged.add(line);
    }
    if (this.shown === ALL || this.shown === log.file) this.view.changed();
  }

  gap(gap) {
    const where = gap.file ? `${gap.file}: bytes ${gap.from ?? "?"} to ${gap.to ?? "?"}` : "";
    say(`Part of the log is not to be had (${where} ${gap.reason})`, true);
  }

  caughtUp() {
    const { file, offset } = this.place;
    if (!file || !this.files.has(file)) return;
    this.place = {};
    this.show(file);
    this.jump(file, Number(offset));
  }

  ended(end) {
    if (end.file !== undefined || end.container === undefined) return;
    const saved = end.confirmed ? "the saved log has every byte of it" : "its end is not confirmed";
    say(`The log is complete: ${saved}.`, !end.confirmed);
  }

  addTab(file) {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.role = "tab";
    tab.textContent = file;
    tab.addEventListener("click", () => this.show(file));
    find("files").append(tab);
  }

  show(file) {
    this.shown = file;
    for (const tab of find("files").children) {
      tab.setAttribute("aria-selected", tab.textContent === file);
    }
    this.view.show(file === ALL ? this.merged : this.lines);
  }

  /** Read bytes of a file from an offset on, up to before another; the text is given to `take`. */
  read(file, epoch, from, to, take) {
    if (this.reading || from >= to) return;
    let text = "";
    const reader = new TextDecoder();
    const done = () => {
      this.reading?.close();
      this.reading = null;
      take(text);
    };
    this.reading = this.events.log(
      this.container ?? this.uuid,
      {
        onlog: (log) => {
          if (log.offset >= to) return done();
          const bytes = log.bytes ?? new TextEncoder().encode(log.text);
          text += reader.decode(bytes.subarray(0, to - log.offset), { stream: true });
          return log.next >= to ? done() : undefined;
        },
        oncaughtup: done,
        onerror: done,
        onrevoked: done,
      },
      { files: [file], from: { [file]: { offset: from, epoch } } },
    );
  }

  loadOlder() {
    const lines = this.lines;
    if (!lines || lines.first <= 0) return;
    const from = Math.max(0, lines.first - PAGE_BYTES);
    const { first, epoch, file } = lines;
    this.read(file, epoch, from, first, (text) => {
      if (lines.first !== first) return;
      // The page begins somewhere in a line, unless it begins with the file.
      const cut = from === 0 ? 0 : text.indexOf("\n") + 1;
      const whole = text.slice(cut);
      const length = new TextEncoder().encode(whole).length;
      const added = lines.prepend(whole, first - length);
      if (this.lines === lines) this.view.changed(added);
    });
  }

  loadNewer() {
    const lines = this.lines;
    if (!lines || lines.atEnd) return;
    const { end, epoch, file } = lines;
    this.read(file, epoch, end, end + PAGE_BYTES, (text) => {
      if (lines.end !== end) return;
      if (!text) lines.atEnd = true;
      else lines.append(text, end, new TextEncoder().encode(text).length);
      if (this.lines === lines) this.view.changed();
    });
  }

  jump(file, offset) {
    const lines = this.files.get(file);
    if (offset < lines.first || offset >= lines.end) {
      lines.clear(offset, lines.epoch);
      lines.atEnd = false;
      this.loadNewer();
      return;
    }
    const index = lines.lines.findLastIndex((line) => line.offset <= offset);
    this.view.layOut();
    if (index >= 0) this.view.goTo(index);
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

function say(text, bad = false) {
  find("line").textContent = text;
  find("line").classList.toggle("bad", bad);
}

function fact(name, value, kind = "") {
  const element = document.createElement("div");
  element.className = "fact";
  const label = document.createElement("span");
  label.textContent = name;
  const text = document.createElement("b");
  text.textContent = value;
  text.className = kind;
  element.append(label, text);
  return element;
}

/** State of a request (with its container's) or of a container, from one record. */
function drawState({ record }) {
  const heading = document.createElement("h1");
  heading.textContent = record.name || record.uuid;
  const container = record.container ?? record;
  const facts = [heading, fact("state", record.state)];
  if (container !== record) facts.push(fact("container", container.state));
  if (container.progress) facts.push(fact("progress", `${Math.round(container.progress * 100)} %`));
  if (container.exit_code !== null && container.exit_code !== undefined) {
    facts.push(fact("exit code", container.exit_code, container.exit_code === 0 ? "good" : "bad"));
  }
  const trouble = container.runtime_status?.error ?? container.runtime_status?.warning;
  if (trouble) facts.push(fact("says", trouble, "bad"));
  document.title = `${record.name || record.uuid}: ${record.state}`;
  find("state").replaceChildren(...facts);
}

let events;
let logs;

function watch(uuid, token, place = {}) {
  events?.close();
  logs?.close();
  find("state").replaceChildren();
  document.querySelector("main").hidden = false;
  events = new ArvadosEvents({
    url: streamUrl(),
    token: () => token,
    onstate: (state, detail) => {
      document.body.dataset.line = state;
      if (state === "open") say("");
      if (state === "waiting") say("Connecting again …");
      if (state === "stopped" && detail.reason) say(`Stopped: ${detail.reason}`, true);
    },
  });
  events.object(uuid, {
    onobject: drawState,
    onerror: (error) => say(error.message, !error.temporary),
    onrevoked: ({ reason }) => say(`No longer readable: ${reason}`, true),
  });
  logs = new Logs(events, uuid, place);
}

/** What the address names; the token does not stay in it. */
function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token") ?? sessionStorage.getItem("token");
  const uuid = given.get("request");
  if (given.has("token")) {
    sessionStorage.setItem("token", token);
    given.delete("token");
    history.replaceState(null, "", `#${given}`);
  }
  if (uuid) find("uuid").value = uuid;
  if (token) find("token").value = token;
  if (uuid && token) watch(uuid, token, { file: given.get("file"), offset: given.get("offset") });
}

find("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const [uuid, token] = [find("uuid").value.trim(), find("token").value.trim()];
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", `#${new URLSearchParams({ request: uuid })}`);
  watch(uuid, token);
});
find("finder").addEventListener("submit", (event) => {
  event.preventDefault();
  search(1);
});
find("sought").addEventListener("input", () => search(0));
find("former").addEventListener("click", () => search(-1));
find("follow").addEventListener("click", () => logs?.follow());

function search(step) {
  const text = find("sought").value;
  const hits = logs?.view.find(text, step) ?? 0;
  find("hits").textContent = text ? `${hits} lines` : "";
}

fromAddress();
