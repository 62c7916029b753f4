// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** The list of one's processes, live: how each is, for how long, what it costs; from here to its log. */

import type { ArvadosEvents, EventMessage, Subscription } from "arvados-events";
import { find, make, renew } from "./dom";
import { harmless } from "../terminal/text";
import { Notice, wishToBeTold } from "./notice";
import { inWorkbench } from "./session";
import { money, nameOf, span, verdict, type Mood, type Process } from "./state";

/** Processes whose state is followed; a connection carries no more subscriptions than that. */
const FOLLOWED = 60;
/** Milliseconds before the list is asked for again, however many processes begin meanwhile. */
const AGAIN_MS = 1500;
/** And where more are not over than are followed, or the list could not be read. */
const REST_MS = 10_000;
/** Running processes whose last line is shown. */
const HEARD = 12;
/** Milliseconds after the last letter of a name before older processes are asked for. */
const TYPED_MS = 300;
/** What comes live is drawn together. */
const DRAW_MS = 250;
const STAMP = /^\d{4}-\d\d-\d\dT[\d:.]+Z /;
const LONGEST = 200;

interface Listed extends Process {
  created_at: string;
  owner_uuid: string;
}

type Wanted = "" | Mood;

interface Told {
  items?: Listed[];
  owners?: Record<string, string>;
  /** Only the newest are listed; projects that are farther below are left out. */
  more?: boolean;
  deeper?: boolean;
  errors?: string[];
}

export class Overview {
  private readonly events: ArvadosEvents;
  private readonly token: () => string;
  private readonly project: string;
  private readonly failed: (why: string) => void;
  private readonly processes = new Map<string, Listed>();
  private readonly followed = new Map<string, Subscription>();
  private readonly heard = new Map<string, Subscription>();
  private readonly lines = new Map<string, string>();
  private owners: Record<string, string> = {};
  private readonly notice = new Notice();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private again: ReturnType<typeof setTimeout> | undefined;
  private readonly clock: ReturnType<typeof setInterval>;
  private name = "";
  private mood: Wanted = "";
  /** Not all are listed: those of a name or a state are asked for. */
  private part = false;
  private left = "";
  private owner = "";
  private drawing: ReturnType<typeof setTimeout> | undefined;
  private readonly title = make("h1");
  private readonly choice = make("select", { "aria-label": "Owner" });
  private readonly body = make("tbody");
  private readonly summary = make("p", { role: "status" });
  private closed = false;

  constructor(events: ArvadosEvents, token: () => string, project: string, failed: (why: string) => void) {
    this.events = events;
    this.token = token;
    this.project = project;
    this.failed = failed;
    find("overview").replaceChildren(
      this.title,
      this.filters(),
      this.summary,
      make(
        "table",
        {},
        make("thead", {}, make("tr", {}, ...["State", "Name", "Owner", "Since", "Took", "Cost"].map(heading))),
        this.body,
      ),
    );
    this.summary.textContent = "loading …";
    this.heading();
    this.clock = setInterval(() => this.draw(), 5000);
    events.events(
      {
        onevent: (event) => isListed(event) && this.later(),
        oncaughtup: () => this.later(),
        onnarrowed: () => this.later(),
      },
      { kinds: ["container_request"], event_types: ["create", "delete"] },
    );
    void this.load();
  }

  private filters(): HTMLElement {
    const name = make("input", { type: "search", placeholder: "Name", "aria-label": "Name" });
    name.addEventListener("input", () => {
      this.name = name.value;
      this.chosen();
    });
    const options: [Wanted, string][] = [
      ["", "any state"], ["running", "running"], ["waiting", "waiting"], ["bad", "failed or cancelled"], ["good", "done"],
    ];
    const mood = make("select", { "aria-label": "State" }, ...options.map(([value, text]) => make("option", { value }, text)));
    mood.addEventListener("change", () => {
      this.mood = mood.value as Wanted;
      this.chosen();
    });
    this.choice.addEventListener("change", () => {
      this.owner = this.choice.value;
      this.draw();
    });
    const notify = make("input", { type: "checkbox" });
    wishToBeTold(notify);
    return make("form", { role: "search", "aria-label": "Processes", onsubmit: (event) => event.preventDefault() },
      name, mood, this.choice, make("label", {}, notify, " Tell me when one is over"));
  }

  /** Others are wanted: of those that are not listed, too. */
  private chosen(): void {
    this.draw();
    if (!this.part) return;
    clearTimeout(this.timer);
    this.timer = undefined;
    this.later(TYPED_MS);
  }

  private later(milliseconds = AGAIN_MS): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      void this.load();
    }, milliseconds);
  }

  private async load(): Promise<void> {
    const url = new URL("v1/processes", document.baseURI);
    const asked = { project: this.project, ...(this.part ? { name: this.name, state: this.mood } : {}) };
    for (const [name, value] of Object.entries(asked)) if (value) url.searchParams.set(name, value);
    try {
      const answer = await fetch(url, { headers: { Authorization: `Bearer ${this.token()}` } });
      const told = (await answer.json()) as Told;
      if (this.closed) return;
      if (answer.status === 401) {
        this.failed("The token is not valid, or not any more: log in again.");
        return;
      }
      if (!told.items) throw new Error(told.errors?.join("; ") ?? answer.statusText);
      this.owners = told.owners ?? {};
      this.part ||= told.more ?? false;
      this.left = told.more ? `; these are the newest ${told.items.length}, a name or a state leads to older ones` : "";
      if (told.deeper) this.left += "; there are projects below that are left out";
      this.take(told.items);
    } catch (error) {
      if (this.closed) return;
      this.afresh();
      this.summary.textContent = `The list cannot be read now: ${error instanceof Error ? error.message : error}`;
    }
  }

  /** Nobody tells what changes meanwhile. */
  private afresh(): void {
    clearTimeout(this.again);
    this.again = setTimeout(() => void this.load(), REST_MS);
  }

  private take(items: Listed[]): void {
    const uuids = new Set(items.map(({ uuid }) => uuid));
    for (const uuid of this.processes.keys()) if (!uuids.has(uuid)) this.processes.delete(uuid);
    for (const item of items) {
      const { uuid } = item;
      const known = this.processes.get(uuid);
      // That it is over can be in the list before it is told; nothing tells it after that.
      const followed = this.followed.has(uuid) && item.state !== "Final";
      this.processes.set(uuid, followed ? { ...item, ...known } : { ...known, ...item });
      if (!followed) this.notice.look(item);
    }
    const going = items.filter(({ state }) => state !== "Final");
    const newest = new Set(going.slice(0, FOLLOWED).map(({ uuid }) => uuid));
    for (const uuid of this.followed.keys()) if (!newest.has(uuid)) this.leave(uuid);
    for (const uuid of newest) this.follow(uuid);
    if (going.length > FOLLOWED) this.afresh();
    this.heading();
    this.offer();
    this.listen();
    this.draw();
  }

  private heading(): void {
    const { project } = this;
    const text = project ? `Processes in ${nameOf(project, this.owners[project])}` : "Processes";
    document.title = text;
    const there = inWorkbench(this.project);
    this.title.replaceChildren(text, ...(there ? [" ", make("a", { href: there }, "in Workbench")] : []));
  }

  /** The owners of what is listed, to choose one. */
  private offer(): void {
    const owners = [...new Set([...this.processes.values()].map(({ owner_uuid }) => owner_uuid))];
    const named = owners.map((uuid): [string, string] => [uuid, nameOf(uuid, this.owners[uuid])]);
    named.sort(([, one], [, other]) => one.localeCompare(other));
    const options = [["", "any owner"] as [string, string], ...named];
    renew(this.choice, options.map(([value, text]) => make("option", { value, selected: value === this.owner }, text)));
    this.choice.hidden = owners.length < 2;
  }

  /** The last line of each process that runs, of the newest ones. */
  private listen(): void {
    const runs = [...this.processes.values()].filter(({ container }) => container?.state === "Running");
    runs.sort((one, other) => (one.created_at < other.created_at ? 1 : -1));
    const wanted = new Set(runs.slice(0, HEARD).map(({ uuid }) => uuid));
    for (const [uuid, subscription] of this.heard) {
      if (wanted.has(uuid)) continue;
      subscription.close();
      this.heard.delete(uuid);
    }
    for (const uuid of wanted) {
      if (this.heard.has(uuid)) continue;
      const onlog = ({ text }: { text?: string }) => {
        const last = text?.trimEnd().split("\n").at(-1)?.slice(-4 * LONGEST).replace(STAMP, "").trim();
        if (!last) return;
        this.lines.set(uuid, last.slice(0, LONGEST));
        this.drawing ??= setTimeout(() => this.draw(), DRAW_MS);
      };
      this.heard.set(uuid, this.events.log(uuid, { onlog }, { tail: 1, files: ["stderr.txt", "stdout.txt"] }));
    }
  }

  private leave(uuid: string): void {
    this.followed.get(uuid)?.close();
    this.followed.delete(uuid);
  }

  private follow(uuid: string): void {
    if (this.followed.has(uuid)) return;
    const subscription = this.events.object(uuid, {
      onobject: ({ record }) => {
        const process = { ...this.processes.get(uuid), ...record } as unknown as Listed;
        this.processes.set(uuid, process);
        this.notice.look(process);
        if (process.state === "Final") this.leave(uuid);
        this.listen();
        this.draw();
      },
      onrevoked: () => {
        this.processes.delete(uuid);
        this.draw();
      },
    });
    this.followed.set(uuid, subscription);
  }

  private draw(): void {
    clearTimeout(this.drawing);
    this.drawing = undefined;
    const now = Date.now();
    const all = [...this.processes.values()].sort((one, other) => (one.created_at < other.created_at ? 1 : -1));
    const shown = all.filter(
      (process) =>
        (process.name ?? process.uuid).toLowerCase().includes(this.name.toLowerCase()) &&
        (!this.mood || verdict(process, now).mood === this.mood) &&
        (!this.owner || process.owner_uuid === this.owner),
    );
    const count = (mood: Mood) => all.filter((process) => verdict(process, now).mood === mood).length;
    const chosen = this.name || this.mood || this.owner;
    this.summary.textContent = shown.length
      ? `${count("running")} running, ${count("waiting")} waiting, ${count("bad")} failed or cancelled, ${count("good")} done` +
        (shown.length < all.length ? `; ${shown.length} shown` : "") + this.left
      : chosen
        ? "No process is like that: choose another name, state or owner."
        : "There are no processes yet. Those that you or others start appear here.";
    const { owners, lines } = this;
    renew(this.body, shown.map((one) => row(one, now, nameOf(one.owner_uuid, owners[one.owner_uuid]), lines.get(one.uuid) ?? "")));
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.again);
    clearTimeout(this.drawing);
    clearInterval(this.clock);
  }
}

/** Whether it is one that nobody else's process asked for, as those of the list. */
function isListed({ properties }: EventMessage): boolean {
  const record = (properties?.new_attributes ?? properties?.old_attributes ?? {}) as Record<string, unknown>;
  return !record.requesting_container_uuid;
}

function heading(text: string): HTMLElement {
  return make("th", { scope: "col", class: ["Owner", "Since", "Cost"].includes(text) ? "less" : "" }, text);
}

function row(process: Listed, now: number, owner: string, line: string): HTMLElement {
  const { mood, word, why } = verdict(process, now);
  const container = process.container;
  const state = make("td", {}, make("b", { class: mood }, word));
  if (container?.state === "Running" && container.progress) {
    const share = `${Math.round(container.progress * 100)}\u00a0%`;
    state.append(" ", make("progress", { max: 1, value: container.progress, "aria-label": "Progress" }), ` ${share}`);
  } else if (mood === "bad" || mood === "waiting") {
    state.append(` ${why}`);
  }
  const took = container?.started_at
    ? span((container.finished_at ? Date.parse(container.finished_at) : now) - Date.parse(container.started_at))
    : "";
  const status = container?.runtime_status ?? {};
  const said = [status.error, status.warning, status.activity].find((text) => typeof text === "string" && text);
  const link = make("a", { href: `#${new URLSearchParams({ request: process.uuid })}` }, nameOf(process.uuid, process.name));
  if (process.name) link.title = harmless(process.name);
  const name = make("td", {}, link);
  if (said) name.append(make("div", { class: status.error ? "bad" : "" }, String(said)));
  if (line && mood === "running") name.append(make("div", { class: "last" }, line));
  const home = make("a", { href: `#${new URLSearchParams({ request: process.owner_uuid })}` }, owner);
  return make(
    "tr",
    { "data-key": process.uuid },
    state,
    name,
    make("td", { class: "less" }, home),
    make("td", { class: "less" }, new Date(process.created_at).toLocaleString()),
    make("td", {}, took),
    make("td", { class: "less" }, money(process)),
  );
}
