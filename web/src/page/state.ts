// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** How a process is, as people ask: is it waiting, and why; how long; did it fail, and why. */

import { size } from "../log/entries";
import { harmless } from "../terminal/text";
import { make, renew } from "./dom";
import { inWorkbench } from "./session";

export interface Container {
  uuid: string;
  state: string;
  priority?: number | string | null;
  progress?: number | null;
  exit_code?: number | null;
  created_at?: string | null;
  started_at?: string | null;
  finished_at?: string | null;
  output?: string | null;
  log?: string | null;
  cost?: number | null;
  runtime_status?: Record<string, unknown> | null;
  runtime_constraints?: Record<string, unknown> | null;
}

/** A container request with its container, or a container alone. */
export interface Process extends Container {
  name?: string | null;
  container_uuid?: string | null;
  container_count?: number | null;
  requesting_container_uuid?: string | null;
  container?: Container | null;
  output_uuid?: string | null;
  log_uuid?: string | null;
  cumulative_cost?: number | null;
}

export type Mood = "waiting" | "running" | "good" | "bad";

export interface Verdict {
  mood: Mood;
  /** One or two words. */
  word: string;
  /** Why, or for how long. */
  why: string;
}

/** A time span for people. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const between = (from: string | null | undefined, to: string | null | undefined, now: number) =>
  from ? span((to ? Date.parse(to) : now) - Date.parse(from)) : "";

export function verdict(process: Process, now: number): Verdict {
  const request = "container_uuid" in process;
  if (request && process.state === "Uncommitted") {
    return { mood: "waiting", word: "Draft", why: "it has not been committed" };
  }
  const container = request ? process.container : process;
  if (!container) {
    if (process.state === "Final") return { mood: "bad", word: "Cancelled", why: "before it got a container" };
    return Number(process.priority ?? 1) === 0
      ? { mood: "waiting", word: "On hold", why: "its priority is 0" }
      : { mood: "waiting", word: "Waiting", why: "for a container" };
  }
  return ofContainer(container, process, now);
}

function ofContainer(container: Container, process: Process, now: number): Verdict {
  const { state, exit_code: code, created_at, started_at, finished_at } = container;
  // A container's priority is told with other changes alone; it is its own where another container asks for it.
  const own = process === container || process.requesting_container_uuid ? container.priority : null;
  const held = Number(own ?? 1) === 0 || Number(process.priority ?? 1) === 0;
  if (state === "Queued" || state === "Locked") {
    const since = between(created_at, null, now);
    if (held) return { mood: "waiting", word: "On hold", why: "its priority is 0" };
    if (state === "Locked") return { mood: "waiting", word: "Starting", why: `a node is being prepared, ${since}` };
    // A container's own priority is a number of 60 bits; people know that of the request.
    const priority = process === container ? "" : `, priority ${process.priority ?? "unknown"}`;
    return { mood: "waiting", word: "Queued", why: `${since}${priority}` };
  }
  const took = between(started_at, finished_at, now);
  if (state === "Running") return { mood: "running", word: "Running", why: held ? `${took}, being cancelled` : took };
  if (state === "Cancelled") {
    return { mood: "bad", word: "Cancelled", why: started_at ? `after ${took}` : "before it started" };
  }
  if (code === 0) return { mood: "good", word: "Done", why: took && `in ${took}` };
  return { mood: "bad", word: "Failed", why: `exit code ${code ?? "unknown"}${took && ` after ${took}`}` };
}

/** Letters that nobody sees. */
const UNSEEN = /[\u115f\u1160\u2800\u3164\uffa0]/g;

/** What a process or a project is called; its uuid if in its name there is nothing to see. */
export function nameOf(uuid: string, name: string | null | undefined): string {
  const shown = harmless(name ?? "");
  return /[\p{L}\p{N}\p{P}\p{S}]/u.test(shown.replace(UNSEEN, "")) ? shown : uuid;
}

const text = (value: unknown) => (typeof value === "string" ? value.trim() : "");

/** On a phone, and where the window is low, the log needs the room. */
const narrow = matchMedia("(max-width: 700px), (max-height: 500px)");

/** Error, warning and activity as the container tells them, each with its detail. */
function told(process: Process): HTMLElement[] {
  const status = (process.container ?? process).runtime_status ?? {};
  const found: HTMLElement[] = [];
  for (const [name, label] of [["error", "Error"], ["warning", "Warning"], ["activity", "Now"]] as const) {
    const [what, detail] = [text(status[name]), text(status[`${name}Detail`])];
    if (!what && !detail) continue;
    const line = make("p", {}, make("b", {}, `${label}: `), what || detail);
    const box = make("div", { class: `told ${name}`, "data-key": name }, line);
    if (what && detail) {
      box.append(folded("Detail", detail, name === "error" && detail.length < 2000));
    }
    found.push(box);
  }
  return found;
}

function folded(title: string, text: string, open: boolean): HTMLElement {
  const shown = make("details", { open: open && !narrow.matches });
  shown.append(make("summary", {}, title), make("pre", { tabindex: 0, "aria-label": title }, text));
  return shown;
}

function fact(name: string, value: string): HTMLElement {
  return make("div", { class: "fact", "data-key": name }, make("span", {}, name), value);
}

/** What a node must have for it: often that is why it waits. */
function needs(process: Process): HTMLElement[] {
  const wanted = process.container?.runtime_constraints ?? process.runtime_constraints ?? {};
  const [cores, memory] = [Number(wanted.vcpus) || 0, (Number(wanted.ram) || 0) + (Number(wanted.keep_cache_ram) || 0)];
  const parts = [cores && `${cores} ${cores === 1 ? "core" : "cores"}`, memory && `${size(memory)} of memory`];
  const told = parts.filter(Boolean).join(", ");
  return told ? [fact("needs", told)] : [];
}

/** A time of today without the day. */
function moment(time: string): string {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString() : date.toLocaleString();
}

/** What it has cost so far, with what a container that is not over tells of itself; "" where nobody says. */
export function money(process: Process): string {
  const { container } = process;
  const own = container && process.state !== "Final" ? container.cost : process.cost;
  const cost = (process.cumulative_cost ?? 0) + (own ?? 0);
  return cost ? cost.toLocaleString("en", { maximumFractionDigits: cost < 1 ? 4 : 2 }) : "";
}

function facts(process: Process, now: number): HTMLElement[] {
  const container = process.container ?? process;
  const found: HTMLElement[] = [];
  if (container.started_at) {
    found.push(fact("waited", between(container.created_at, container.started_at, now)));
    found.push(fact("ran", between(container.started_at, container.finished_at, now)));
    found.push(fact("began", moment(container.started_at)));
    if (container.finished_at) found.push(fact("ended", moment(container.finished_at)));
  } else if (container.state === "Queued" || container.state === "Locked" || container.state === "Committed") {
    found.push(...needs(process));
  }
  if (container.state === "Running" && container.progress) {
    const bar = make("progress", { max: 1, value: container.progress, "aria-label": "Progress" });
    const share = `${Math.round(container.progress * 100)} %`;
    found.push(make("div", { class: "fact", "data-key": "progress" }, make("span", {}, "progress"), bar, ` ${share}`));
  }
  const cost = money(process);
  if (cost) found.push(fact("cost", cost));
  if ((process.container_count ?? 0) > 1) found.push(fact("attempts", String(process.container_count)));
  const links = [
    ["Workbench", inWorkbench(process.uuid)], ["Output", inWorkbench(process.output_uuid)],
    ["Saved log", inWorkbench(process.log_uuid)],
  ].flatMap(([name, href]) => (name && href ? [make("a", { class: "fact", "data-key": name, href }, name)] : []));
  if (!inWorkbench(process.output_uuid) && process.output_uuid) found.push(fact("output", process.output_uuid));
  if (!inWorkbench(process.log_uuid) && process.log_uuid) found.push(fact("saved log", process.log_uuid));
  return [...found, ...links];
}

/** What is shown of a process; drawn again as time goes by. */
export class State {
  private readonly heading: HTMLElement;
  private readonly place: HTMLElement;
  private process: Process | null = null;
  private lastLines: readonly string[] = [];
  private gaps: readonly string[] = [];
  private readonly clock: ReturnType<typeof setInterval>;

  constructor(heading: HTMLElement, place: HTMLElement) {
    this.heading = heading;
    this.place = place;
    this.clock = setInterval(() => this.tick(), 1000);
  }

  show(process: Process): void {
    this.process = process;
    this.draw();
  }

  /** What it wrote last to stderr: often why it failed; and what of its log is not to be had. */
  wrote(lines: readonly string[], gaps: readonly string[]): void {
    if (lines.join("\n") === this.lastLines.join("\n") && gaps.length === this.gaps.length) return;
    this.lastLines = lines;
    this.gaps = [...gaps];
    this.draw();
  }

  private tick(): void {
    if (this.process && ["running", "waiting"].includes(verdict(this.process, Date.now()).mood)) this.draw();
  }

  draw(): void {
    const { process } = this;
    if (!process) return;
    const now = Date.now();
    const { mood, word, why } = verdict(process, now);
    const name = nameOf(process.uuid, process.name);
    document.title = `${word}: ${name}`;
    renew(this.heading, [
      make("h1", { title: name }, name),
      make("div", { id: "verdict" }, make("b", { class: `mood ${mood}` }, word), why && ` ${why}`),
    ]);
    const blocks = [make("div", { class: "facts" }, ...facts(process, now)), ...told(process)];
    const [gap, ...more] = this.gaps;
    if (gap !== undefined) {
      const missing = make("p", {}, make("b", {}, "Missing in the log: "), gap);
      blocks.push(make("div", { class: "told warning", "data-key": "gaps" }, missing));
      if (more.length) blocks.at(-1)?.append(folded(`${more.length} more`, more.join("\n"), false));
    }
    if (mood === "bad" && this.lastLines.length) {
      const last = folded("Last lines of stderr.txt", this.lastLines.join("\n"), true);
      blocks.push(make("div", { class: "told error", "data-key": "stderr" }, last));
    }
    renew(this.place, blocks);
    // What is longer than its place can be read with keys.
    this.place.tabIndex = this.place.scrollHeight > this.place.clientHeight ? 0 : -1;
  }

  close(): void {
    clearInterval(this.clock);
  }
}
