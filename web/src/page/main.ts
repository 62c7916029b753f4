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

import { ArvadosEvents } from "arvados-events";
import { size, type Entry } from "../log/entries";
import { Ranges } from "../log/ranges";
import type { Times } from "../view/gutters";
import { find, make } from "./dom";
import { Logs, type Place, type Word } from "./logs";
import { drawState } from "./state";

let events: ArvadosEvents | undefined;
let logs: Logs | undefined;

function streamUrl(): string {
  const url = new URL("v1/stream", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url.href;
}

function say({ text, bad }: Word): void {
  find("line").textContent = text;
  find("line").classList.toggle("bad", bad);
}

/** The server is there, and says that what reaches it is no WebSocket: a proxy on the way strips it. */
async function explain(): Promise<void> {
  const answer = await fetch("v1/stream").catch(() => undefined);
  if (answer?.status === 400 && (await answer.text()).includes("not websocket protocol")) {
    if (document.body.dataset.line !== "open") {
      say({ text: "A proxy on the way does not forward WebSockets (its Upgrade header).", bad: true });
    }
  }
}

function lineChanged(state: string, detail: unknown): void {
  document.body.dataset.line = state;
  const { reason, reached } = (detail ?? {}) as { reason?: string; reached?: boolean };
  if (state === "open") say(logs?.attempt.word ?? { text: "", bad: false });
  if (state === "waiting") {
    say({ text: "Connecting again …", bad: false });
    if (!reached) void explain();
  }
  if (state === "stopped" && reason) say({ text: `Stopped: ${reason}`, bad: true });
}

function watch(uuid: string, token: string, place: Place = {}): void {
  events?.close();
  logs?.close();
  find("state").replaceChildren();
  find("empty").hidden = true;
  find("watching").hidden = false;
  find<HTMLDetailsElement>("opener").open = false;
  const url = streamUrl();
  events = new ArvadosEvents({ url, token: () => token, onstate: lineChanged });
  events.object(uuid, {
    onobject: drawState,
    onerror: (error) => say({ text: error.message, bad: !error.temporary }),
    onrevoked: ({ reason }) => say({ text: `No longer readable: ${reason}`, bad: true }),
  });
  const host = make("div");
  find("log").replaceChildren(host);
  logs = new Logs(host, events, uuid, new Ranges(uuid, url, () => token), place, {
    say,
    listed: drawLists,
    followed: (following) => find("follow").setAttribute("aria-pressed", String(following)),
    counted: drawCount,
    linked: (entry) => link(uuid, entry),
    found: drawFound,
  });
}

function link(uuid: string, entry: Entry): void {
  const place = new URLSearchParams({
    request: uuid,
    file: entry.file.name,
    offset: String(entry.from),
  });
  history.replaceState(null, "", `#${place}`);
}

function tab(text: string, view: string): HTMLElement {
  const selected = logs?.view === view;
  return make(
    "button",
    {
      type: "button",
      role: "tab",
      "aria-selected": String(selected),
      "aria-controls": "log",
      tabindex: selected ? 0 : -1,
      onclick: () => logs?.show(view),
    },
    text,
  );
}

function drawLists(): void {
  if (!logs) return;
  const names = [...logs.attempt.files.keys()].sort();
  const tabs = [tab("Main logs", "main"), tab("All files", "all"), ...names.map((name) => tab(name, name))];
  const focused = document.activeElement?.getAttribute("role") === "tab";
  find("files").replaceChildren(...tabs);
  if (focused) find("files").querySelector<HTMLElement>("[aria-selected=true]")?.focus();
  const attempts = [...logs.attempts.values()];
  find("attempts").hidden = attempts.length < 2;
  const { attempt } = logs;
  find("attempts")
    .querySelector("select")
    ?.replaceChildren(
      ...attempts.map((one) => make("option", { value: one.n, selected: one === attempt }, String(one.n))),
    );
}

function drawFound(): void {
  const search = logs?.find;
  find("stop").hidden = !search?.progress;
  if (!search) {
    find("hits").textContent = "";
    return;
  }
  const { count, at, progress, stopped } = search;
  const lines = `${count.toLocaleString("en")} ${count === 1 ? "line" : "lines"}`;
  const parts = [at < 0 ? lines : `${at + 1} of ${lines}`];
  if (progress) parts.push(`searching: ${progress}`);
  if (stopped) parts.push("in the part that was searched");
  find("hits").textContent = parts.join(", ");
}

function drawCount(): void {
  if (!logs) return;
  const { lines, loaded, size: all } = logs.counts;
  const part = loaded < all ? `${size(loaded)} of ${size(all)}` : size(all);
  find("count").textContent = logs.loading ? "loading …" : `${lines.toLocaleString("en")} lines, ${part}`;
}

/** What the address names; the token does not stay in it. */
function fromAddress(): void {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token") ?? sessionStorage.getItem("token");
  const uuid = given.get("request");
  if (given.has("token") && token) {
    sessionStorage.setItem("token", token);
    given.delete("token");
    history.replaceState(null, "", `#${given}`);
  }
  if (uuid) find<HTMLInputElement>("uuid").value = uuid;
  if (token) find<HTMLInputElement>("token").value = token;
  const offset = given.get("offset");
  const place: Place = { file: given.get("file"), view: given.get("view") };
  if (offset) place.offset = Number(offset);
  if (uuid && token) watch(uuid, token, place);
}

function connectControls(): void {
  find("open").addEventListener("submit", (event) => {
    event.preventDefault();
    const uuid = find<HTMLInputElement>("uuid").value.trim();
    const token = find<HTMLInputElement>("token").value.trim();
    sessionStorage.setItem("token", token);
    history.replaceState(null, "", `#${new URLSearchParams({ request: uuid })}`);
    watch(uuid, token);
  });
  const sought = find<HTMLInputElement>("sought");
  let typed: ReturnType<typeof setTimeout>;
  find("finder").addEventListener("submit", (event) => {
    event.preventDefault();
    void logs?.findNext(1);
  });
  sought.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => logs?.search(sought.value), 150);
  });
  find("former").addEventListener("click", () => void logs?.findNext(-1));
  find("stop").addEventListener("click", () => logs?.find?.stop());
  find("follow").addEventListener("click", () => logs?.toEnd());
  find("beginning").addEventListener("click", () => void logs?.toBeginning());
  find("times").addEventListener("change", () => {
    if (!logs) return;
    logs.viewer.times = find<HTMLSelectElement>("times").value as Times;
    logs.viewer.redraw();
  });
  find("wrap").addEventListener("change", () => logs?.viewer.setWrap(find<HTMLInputElement>("wrap").checked));
  find("files").addEventListener("keydown", (event) => {
    const tabs = [...find("files").querySelectorAll<HTMLElement>("[role=tab]")];
    const at = tabs.findIndex((one) => one.getAttribute("aria-selected") === "true");
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? tabs.length - 1 : step && at + step;
    if (to === undefined) return;
    event.preventDefault();
    tabs[(to + tabs.length) % tabs.length]?.click();
  });
  find("attempts").addEventListener("change", () => {
    const n = Number(find("attempts").querySelector("select")?.value);
    const attempt = [...(logs?.attempts.values() ?? [])].find((one) => one.n === n);
    if (attempt) logs?.showAttempt(attempt);
  });
}

connectControls();
fromAddress();
