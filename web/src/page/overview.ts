// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** The list of one's processes, live: how each is, for how long, what it costs; from here to its log. */

import type { ArvadosEvents, Subscription } from "arvados-events";
import { find, make } from "./dom";
import { span, verdict, type Mood, type Process } from "./state";

/** Processes whose state is followed; a connection carries no more subscriptions than that. */
const FOLLOWED = 60;
/** Milliseconds before the list is asked for again, however many processes begin meanwhile. */
const AGAIN_MS = 1500;
const NOTIFY = "notify";

interface Listed extends Process {
  created_at: string;
  owner_uuid: string;
}

type Wanted = "" | Mood;

export class Overview {
  private readonly events: ArvadosEvents;
  private readonly token: () => string;
  private readonly project: string;
  private readonly failed: (why: string) => void;
  private readonly processes = new Map<string, Listed>();
  private readonly followed = new Map<string, Subscription>();
  private readonly waited = new Set<string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly clock: ReturnType<typeof setInterval>;
  private name = "";
  private mood: Wanted = "";
  private readonly body = make("tbody");
  private readonly summary = make("p", { role: "status" });
  private closed = false;

  constructor(events: ArvadosEvents, token: () => string, project: string, failed: (why: string) => void) {
    this.events = events;
    this.token = token;
    this.project = project;
    this.failed = failed;
    find("overview").replaceChildren(
      make("h1", {}, project ? `Processes of project ${project}` : "Processes"),
      this.filters(),
      this.summary,
      make(
        "table",
        {},
        make("thead", {}, make("tr", {}, ...["State", "Name", "Since", "Took", "Cost"].map(heading))),
        this.body,
      ),
    );
    document.title = "Processes";
    this.clock = setInterval(() => this.draw(), 5000);
    events.events(
      { onevent: () => this.later(), oncaughtup: () => this.later() },
      { kinds: ["container_request"], event_types: ["create", "delete"] },
    );
    void this.load();
  }

  private filters(): HTMLElement {
    const name = make("input", { type: "search", placeholder: "Name", "aria-label": "Name" });
    name.addEventListener("input", () => {
      this.name = name.value.toLowerCase();
      this.draw();
    });
    const options: [Wanted, string][] = [
      ["", "any state"], ["running", "running"], ["waiting", "waiting"], ["bad", "failed or cancelled"], ["good", "done"],
    ];
    const mood = make("select", { "aria-label": "State" }, ...options.map(([value, text]) => make("option", { value }, text)));
    mood.addEventListener("change", () => {
      this.mood = mood.value as Wanted;
      this.draw();
    });
    const notify = make("input", { type: "checkbox", checked: localStorage.getItem(NOTIFY) === "on" });
    notify.addEventListener("change", () => void this.askToNotify(notify));
    return make("form", { role: "search", "aria-label": "Processes", onsubmit: (event) => event.preventDefault() },
      name, mood, make("label", {}, notify, " Tell me when one is over"));
  }

  private async askToNotify(box: HTMLInputElement): Promise<void> {
    if (box.checked && (await Notification.requestPermission()) !== "granted") box.checked = false;
    localStorage.setItem(NOTIFY, box.checked ? "on" : "off");
  }

  private later(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      void this.load();
    }, AGAIN_MS);
  }

  private async load(): Promise<void> {
    const url = new URL("v1/processes", document.baseURI);
    if (this.project) url.searchParams.set("project", this.project);
    try {
      const answer = await fetch(url, { headers: { Authorization: `Bearer ${this.token()}` } });
      const told = (await answer.json()) as { items?: Listed[]; errors?: string[] };
      if (this.closed) return;
      if (answer.status === 401) this.failed("The token is not valid, or not any more: log in again.");
      if (!told.items) throw new Error(told.errors?.join("; ") ?? answer.statusText);
      this.take(told.items);
    } catch (error) {
      if (!this.closed) this.summary.textContent = `The list cannot be read now: ${error instanceof Error ? error.message : error}`;
    }
  }

  private take(items: Listed[]): void {
    const uuids = new Set(items.map(({ uuid }) => uuid));
    for (const uuid of this.processes.keys()) if (!uuids.has(uuid)) this.processes.delete(uuid);
    for (const item of items) this.processes.set(item.uuid, { ...item, ...this.processes.get(item.uuid) });
    for (const { uuid } of items.filter(({ state }) => state !== "Final").slice(0, FOLLOWED)) this.follow(uuid);
    this.draw();
  }

  private follow(uuid: string): void {
    if (this.followed.has(uuid)) return;
    const over = () => {
      this.followed.get(uuid)?.close();
      this.followed.delete(uuid);
    };
    const subscription = this.events.object(uuid, {
      onobject: ({ record }) => {
        const process = { ...this.processes.get(uuid), ...record } as unknown as Listed;
        this.processes.set(uuid, process);
        this.tellIfOver(process);
        if (process.state === "Final") over();
        this.draw();
      },
      onrevoked: () => {
        this.processes.delete(uuid);
        this.draw();
      },
    });
    this.followed.set(uuid, subscription);
  }

  private tellIfOver(process: Listed): void {
    const { mood, word } = verdict(process, Date.now());
    if (mood === "running" || mood === "waiting") {
      this.waited.add(process.uuid);
    } else if (this.waited.delete(process.uuid) && localStorage.getItem(NOTIFY) === "on") {
      if ("Notification" in window && Notification.permission === "granted") {
        new Notification(`${word}: ${process.name ?? process.uuid}`);
      }
    }
  }

  private draw(): void {
    const now = Date.now();
    const all = [...this.processes.values()].sort((one, other) => (one.created_at < other.created_at ? 1 : -1));
    const shown = all.filter(
      (process) =>
        (process.name ?? process.uuid).toLowerCase().includes(this.name) &&
        (!this.mood || verdict(process, now).mood === this.mood),
    );
    const count = (mood: Mood) => all.filter((process) => verdict(process, now).mood === mood).length;
    this.summary.textContent = all.length
      ? `${count("running")} running, ${count("waiting")} waiting, ${count("bad")} failed, ${count("good")} done` +
        (shown.length < all.length ? `; ${shown.length} shown` : "")
      : "There are no processes yet. Those that you or others start appear here.";
    const focused = (document.activeElement as HTMLAnchorElement | null)?.href;
    this.body.replaceChildren(...shown.map((process) => row(process, now)));
    if (focused) [...this.body.querySelectorAll("a")].find(({ href }) => href === focused)?.focus();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    clearInterval(this.clock);
  }
}

function heading(text: string): HTMLElement {
  return make("th", { scope: "col", class: ["Since", "Cost"].includes(text) ? "less" : "" }, text);
}

function row(process: Listed, now: number): HTMLElement {
  const { mood, word, why } = verdict(process, now);
  const container = process.container;
  const progress = container?.state === "Running" && container.progress
    ? ` ${Math.round(container.progress * 100)} %`
    : "";
  const took = container?.started_at
    ? span((container.finished_at ? Date.parse(container.finished_at) : now) - Date.parse(container.started_at))
    : "";
  const status = container?.runtime_status ?? {};
  const said = [status.error, status.warning, status.activity].find((text) => typeof text === "string" && text);
  const link = make("a", { href: `#${new URLSearchParams({ request: process.uuid })}` }, process.name || process.uuid);
  const name = make("td", {}, link);
  if (said) name.append(make("div", { class: status.error ? "bad" : "" }, String(said)));
  return make(
    "tr",
    {},
    make("td", {}, make("b", { class: mood }, word), progress || (mood === "bad" || mood === "waiting" ? ` ${why}` : "")),
    name,
    make("td", { class: "less" }, new Date(process.created_at).toLocaleString()),
    make("td", {}, took),
    make("td", { class: "less" }, process.cumulative_cost ? process.cumulative_cost.toFixed(2) : ""),
  );
}
