// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** One process on the page: its state above, its logs below, and what can be done with them. */

import type { ArvadosEvents } from "arvados-events";
import { size, type Entry } from "../log/entries";
import type { LogFile } from "../log/file";
import { Ranges } from "../log/ranges";
import { harmless } from "../terminal/text";
import type { Times } from "../view/gutters";
import type { Picked } from "../view/viewer";
import { find, make, renew } from "./dom";
import { MAIN, type Place, type Word } from "./attempt";
import { Logs } from "./logs";
import { Notice } from "./notice";
import { Plots } from "./plots";
import { State, verdict, type Process, type Verdict } from "./state";

const NEWS_MS = 3000;
/** What is shown of stderr where the state says that it failed. */
const LAST_LINES = 5;
/** Letters of a file's name that a tab shows in any case. */
const SHORT = 25;
const SIZES = [10, 11, 12.5, 14, 16, 18];
const SIZE = "log-size";
const TIMES: readonly Times[] = ["off", "relative", "local", "utc"];

export class Watch {
  readonly logs: Logs;
  private readonly state: State;
  private readonly notice = new Notice();
  private readonly uuid: string;
  private readonly url: string;
  private readonly token: () => string;
  private readonly say: (word: Word) => void;
  private plots: Plots | null = null;
  private verdict: Verdict | null = null;
  /** Bytes that the container may use. */
  private memory = 0;
  /** What takes long, besides finding. */
  private working = "";
  private news = { count: 0, last: "", timer: undefined as ReturnType<typeof setTimeout> | undefined };

  constructor(uuid: string, events: ArvadosEvents, url: string, token: () => string, place: Place, say: (word: Word) => void) {
    this.uuid = uuid;
    this.url = url;
    this.token = token;
    this.say = say;
    find("heading").replaceChildren();
    for (const id of ["state", "files"]) find(id).replaceChildren();
    this.state = new State(find("heading"), find("state"));
    const host = make("div");
    find("log").replaceChildren(host);
    setSize(host);
    this.logs = new Logs(host, events, uuid, new Ranges(uuid, url, token), place, {
      say,
      listed: () => {
        this.drawLists();
        this.renewPlots();
      },
      followed: () => this.drawFollow(),
      counted: () => this.drawCount(),
      linked: (picked) => history.replaceState(null, "", `#${this.address(picked)}`),
      found: () => this.drawFound(),
      arrived: (entries) => this.announce(entries),
      heard: (log) => this.plots?.heard(log),
      busy: (what) => {
        this.working = what;
        this.drawBusy();
      },
    });
    find<HTMLSelectElement>("times").value = this.logs.viewer.times;
    find<HTMLSelectElement>("least").value = "0";
    find<HTMLInputElement>("sought").value = "";
  }

  show(process: Process): void {
    this.state.show(process);
    this.verdict = verdict(process, Date.now());
    this.notice.look(process);
    find("telling").hidden = !["waiting", "running"].includes(this.verdict.mood);
    const container = process.container ?? process;
    this.memory = Number(container.runtime_constraints?.ram) || 0;
    this.logs.viewer.origin = container.started_at ?? container.created_at ?? "";
    this.drawCount();
  }

  /** Something that the state is shown with is known now. */
  redraw(): void {
    this.state.draw();
  }

  close(): void {
    clearTimeout(this.news.timer);
    this.showPlots(false);
    this.state.close();
    this.logs.close();
  }

  showPlots(shown = !this.plots): void {
    this.plots?.close();
    const ranges = new Ranges(this.uuid, this.url, this.token);
    this.plots = shown ? new Plots(find("plots"), this.statistics, ranges, this.memory, this.logs.attempt.over) : null;
    find("plot").setAttribute("aria-pressed", String(shown));
  }

  private get statistics(): LogFile[] {
    const { files } = this.logs.attempt;
    return ["crunchstat.txt", "hoststat.txt"].flatMap((name) => files.get(name) ?? []);
  }

  /** Another attempt is shown, or its statistics begin. */
  private renewPlots(): void {
    if (this.plots && !this.plots.areOf(this.statistics)) this.showPlots(true);
  }

  /** What leads here again: to lines if some are named, else to what is shown. */
  private address(picked: Picked | null): URLSearchParams {
    const place = new URLSearchParams({ request: this.uuid });
    if (picked) {
      place.set("file", picked.file.name);
      place.set("offset", String(picked.from));
      if (picked.to !== picked.from) place.set("to", String(picked.to));
    } else if (this.logs.view !== "main") {
      place.set("view", this.logs.view);
    }
    return place;
  }

  private tab(text: string, view: string): HTMLElement {
    const selected = this.logs.view === view;
    return make(
      "button",
      {
        type: "button",
        role: "tab",
        "aria-selected": String(selected),
        "aria-controls": "log",
        "data-key": view,
        title: view === text && text.length > SHORT ? harmless(text) : false,
        tabindex: selected ? 0 : -1,
        onclick: () => this.showView(view),
      },
      text,
    );
  }

  private showView(view: string): void {
    this.logs.show(view);
    history.replaceState(null, "", `#${this.address(null)}`);
  }

  private drawLists(): void {
    const { logs } = this;
    if (!logs) return;
    const names = [...logs.attempt.files.keys()].sort((one, other) => rank(one) - rank(other) || (one < other ? -1 : 1));
    const tabs = [this.tab("Main logs", "main"), this.tab("All files", "all")];
    tabs.push(...names.map((name) => this.tab(name, name)));
    const focused = document.activeElement?.getAttribute("role") === "tab";
    renew(find("files"), tabs);
    const selected = find("files").querySelector<HTMLElement>("[aria-selected=true]");
    if (focused) selected?.focus();
    selected?.scrollIntoView({ block: "nearest", inline: "nearest" });
    const attempts = [...logs.attempts.values()];
    find("attempts").hidden = attempts.length < 2;
    const options = attempts.map(({ n }) => make("option", { value: n, selected: n === logs.attempt.n }, `${n}`));
    const choice = find("attempts").querySelector("select");
    if (choice) renew(choice, options);
    if (choice) choice.value = String(logs.attempt.n);
  }

  private drawCount(): void {
    const { logs } = this;
    if (!logs) return;
    const { lines, loaded, size: all } = logs.counts;
    const part = loaded < all ? `showing ${size(loaded)} of ${size(all)}` : size(all);
    const entries = logs.viewer.sheet?.entries ?? [];
    const shown = lineCount(entries);
    const bad = logs.least ? `${shown.toLocaleString("en")} of ` : "";
    const told = all ? `${bad}${lines.toLocaleString("en")} ${lines === 1 ? "line" : "lines"}, ${part}` : "";
    find("count").textContent = logs.loading ? "loading …" : told;
    const empty = !logs.loading && shown === 0;
    find("none").hidden = !empty;
    find("log").hidden = empty && entries.length === 0;
    this.drawFollow();
    this.state.wrote(logs.newestFile("stderr.txt")?.lastLines(LAST_LINES) ?? [], logs.attempt.gaps);
    if (!empty) return;
    find("none").textContent = logs.least
      ? `No line that is loaded says that it is ${logs.least > 1 ? "an error" : "an error or a warning"}.`
      : this.nothing();
  }

  /** Why there is no line, and what to wait for. */
  private nothing(): string {
    const { mood, word } = this.verdict ?? {};
    if (word === "On hold") {
      return "It is on hold: its priority is 0. Lines appear here once it has another priority in Workbench, and runs.";
    }
    if (!mood) return "loading …";
    if (mood === "waiting") return `It has not begun: ${word?.toLowerCase()}. Lines appear here once it runs.`;
    if (mood === "good" || mood === "bad") return "Nothing has been logged.";
    return "Nothing has been logged yet. Lines appear here as soon as the container writes them.";
  }

  /** What is over is not followed: its end is gone to. */
  private drawFollow(): void {
    const { logs } = this;
    const over = logs?.attempt.over ?? false;
    find("follow").textContent = over ? "End" : "Follow";
    find("follow").setAttribute("aria-pressed", String(!over && (logs?.viewer.following ?? true)));
  }

  private drawFound(): void {
    const search = this.logs?.find;
    if (!search) {
      find("hits").textContent = "";
    } else {
      const { count, at, stopped, matches } = search;
      const lines = `${count.toLocaleString("en")} ${count === 1 ? "line" : "lines"}`;
      const reached = matches.length < count ? `, ${matches.length.toLocaleString("en")} can be gone to` : "";
      const found = (at < 0 ? lines : `${(at + 1).toLocaleString("en")} of ${lines}`) + reached;
      // What is counted is told once, not at each step.
      find("hits").ariaBusy = String(search.progress !== "");
      find("hits").textContent = stopped ? `${found} in the part that was searched` : found;
    }
    this.drawBusy();
  }

  private drawBusy(): void {
    const progress = this.logs?.find?.progress;
    const what = this.working || (progress ? `searching: ${progress}` : "");
    find("busy").textContent = harmless(what);
    find("stop").hidden = !what;
  }

  /** New lines for who cannot see them: a few words now and then. */
  private announce(entries: Entry[]): void {
    this.news.count += entries.length;
    this.news.last = entries.at(-1)?.text ?? this.news.last;
    this.news.timer ??= setTimeout(() => {
      const { count, last } = this.news;
      this.news = { count: 0, last: "", timer: undefined };
      find("news").textContent = count === 1 ? last : `${count} new lines, the last one: ${last.slice(0, 300)}`;
    }, NEWS_MS);
  }

  async copyLink(): Promise<void> {
    const { viewer } = this.logs;
    const selection = viewer.view.state.selection.main;
    const picked = selection.empty ? viewer.picked : viewer.selected;
    if (picked) {
      viewer.picked = picked;
      viewer.redraw();
    }
    const link = new URL(location.href);
    link.hash = this.address(picked).toString();
    history.replaceState(null, "", link.hash);
    try {
      // There is no clipboard where the page comes by http.
      await navigator.clipboard.writeText(link.href);
      this.say({ text: picked ? "The link to these lines is copied." : "The link is copied.", bad: false });
    } catch {
      this.say({ text: "The link is in the address bar.", bad: false });
    }
  }

  setTimes(times: Times): void {
    find<HTMLSelectElement>("times").value = times;
    this.logs.viewer.times = times;
    this.logs.viewer.redraw();
  }

  nextTimes(): void {
    const next = TIMES[(TIMES.indexOf(this.logs.viewer.times) + 1) % TIMES.length];
    if (next) this.setTimes(next);
  }

  step(by: number): void {
    const tabs = [...find("files").querySelectorAll<HTMLElement>("[role=tab]")];
    const at = tabs.findIndex((one) => one.getAttribute("aria-selected") === "true");
    tabs[(at + by + tabs.length) % tabs.length]?.click();
  }

  async goTo(text: string): Promise<void> {
    const wanted = find<HTMLInputElement>("goto");
    const known = await this.logs.reading.goTo(text, this.logs.filesOf(this.logs.view));
    wanted.setCustomValidity(known ? "" : "A line number (of one file), or a time as 12:34");
    wanted.reportValidity();
  }

  setLeast(least: number): void {
    this.logs.least = least;
    this.logs.show(this.logs.view);
  }

  /** Larger or smaller text. */
  resize(by: number): void {
    const now = SIZES.indexOf(Number(localStorage.getItem(SIZE) ?? 12.5));
    const next = SIZES[Math.min(SIZES.length - 1, Math.max(0, now + by))] ?? 12.5;
    localStorage.setItem(SIZE, String(next));
    setSize(find("log").firstElementChild as HTMLElement);
    this.logs.viewer.view.requestMeasure();
  }
}

const lineCount = (entries: readonly Entry[]) => entries.reduce((sum, { kind }) => sum + Number(kind === "line"), 0);

/** Main logs come before others. */
function rank(name: string): number {
  const at = MAIN.indexOf(name);
  return at < 0 ? MAIN.length : at;
}

function setSize(host: HTMLElement): void {
  host.style.setProperty("--log-size", `${Number(localStorage.getItem(SIZE)) || 12.5}px`);
}
