// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * The page: one process with its state and its logs, live, or the list of one's processes.
 *
 * A link names what to show in its fragment, which no browser sends to a server:
 * `#request=<uuid>&token=<token>` and, for a place in a log, `&file=<name>&offset=<byte>`. The token is
 * taken out of the address at once and kept for this tab only.
 */

import { ArvadosEvents } from "arvados-events";
import { harmless } from "../terminal/text";
import { find } from "./dom";
import { listen, showKeys, type Key } from "./keys";
import type { Place, Word } from "./attempt";
import { connect, keysOf } from "./controls";
import { Overview } from "./overview";
import * as session from "./session";
import type { Process } from "./state";
import { Watch } from "./watch";

/** Also in the address of a page of Workbench's. */
const UUID = /[a-z0-9]{5}-(?:xvhdp|dz642|j7d0g|tpzed)-[a-z0-9]{15}/;
let events: ArvadosEvents | undefined;
let watched: Watch | undefined;
let overview: Overview | undefined;
const opener = find<HTMLDetailsElement>("opener");
let arvados: session.Site | null = null;
let lost: Date | undefined;

function streamUrl(): string {
  const url = new URL("v1/stream", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = url.search = "";
  return url.href;
}

function say({ text, bad }: Word): void {
  find("line").textContent = harmless(text);
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
  if (state === "open") {
    lost = undefined;
    say(watched?.logs.attempt.word ?? { text: "", bad: false });
  }
  if (state === "waiting") {
    lost ??= new Date();
    say({ text: `No connection since ${lost.toLocaleTimeString()}: connecting again …`, bad: true });
    if (!reached) void explain();
  }
  if (state !== "stopped" || !reason || reason === "closed by the page") return;
  say({ text: `Stopped: ${reason}`, bad: true });
  if (reason.includes("token")) {
    welcome("The token is not valid, or not any more: log in again.");
    drawLogin(false);
  }
}

function leave(): void {
  lost = undefined;
  events?.close();
  watched?.close();
  overview?.close();
  watched = undefined;
  overview = undefined;
  for (const id of ["empty", "overview", "watching"]) find(id).hidden = true;
  find("heading").replaceChildren();
  say({ text: "", bad: false });
}

function connection(): ArvadosEvents {
  events = new ArvadosEvents({ url: streamUrl(), token: session.token, onstate: lineChanged });
  return events;
}

/** Nothing can be shown: say why, and what to do. */
function welcome(why: string): void {
  for (const id of ["overview", "watching"]) find(id).hidden = true;
  find("empty").hidden = false;
  find("why").textContent = harmless(why);
}

function watch(uuid: string, place: Place): void {
  find("watching").hidden = false;
  const line = connection();
  const unlessRefused = (word: Word) => void (find("empty").hidden && say(word));
  watched = new Watch(uuid, line, streamUrl(), session.token, place, unlessRefused);
  line.object(uuid, {
    onobject: ({ record }) => watched?.show(record as unknown as Process),
    onerror: (error) => {
      if (error.temporary) say({ text: error.message, bad: false });
      else {
        say({ text: "", bad: false });
        welcome(`${uuid}: ${error.message}`);
      }
    },
    onrevoked: ({ reason }) => say({ text: `No longer readable: ${reason}`, bad: true }),
  });
}

/** Who is logged in is offered to log out, and nothing else. */
function drawLogin(valid = true): void {
  const logged = valid && session.token() !== "";
  const by = logged && !session.own() ? " by Workbench" : "";
  find("who").textContent = logged ? `You are logged in${by}.` : "You are not logged in.";
  find("logout").hidden = !logged;
  find("login").hidden = logged || arvados === null;
  find("enter").hidden = arvados === null;
  find("enter").textContent = logged ? "Log in as somebody else" : "Log in at Arvados";
}

/** Show what the address names. */
function open(given: URLSearchParams): void {
  leave();
  opener.open = false;
  find("refused").textContent = "";
  const uuid = given.get("request");
  if (uuid) find<HTMLInputElement>("uuid").value = uuid;
  find<HTMLInputElement>("token").value = session.own() ? session.token() : "";
  drawLogin();
  if (!session.token()) {
    welcome(uuid ? `To see ${uuid}, log in.` : "Log in to see your processes.");
    return;
  }
  if (!uuid || /-(?:j7d0g|tpzed)-/.test(uuid)) {
    find("overview").hidden = false;
    overview = new Overview(connection(), session.token, uuid ?? "", welcome);
    return;
  }
  const number = (name: string) => (given.has(name) ? Number(given.get(name)) : undefined);
  watch(uuid, { file: given.get("file"), view: given.get("view"), offset: number("offset"), to: number("to") });
}

function go(uuid: string): void {
  const address = `#${new URLSearchParams({ request: uuid })}`;
  if (location.hash === address) open(new URLSearchParams(address.slice(1)));
  else location.hash = address;
}

async function askSite(): Promise<void> {
  arvados = await session.site();
  drawLogin();
  watched?.redraw();
}

const help: Key = { key: "?", does: "this list", run: () => showKeys(keys) };
const keys: Key[] = [...keysOf(() => watched), help];

find("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find<HTMLInputElement>("token").value.trim();
  if (text) session.keep(text);
  const asked = find<HTMLInputElement>("uuid").value.trim();
  go(UUID.exec(asked)?.[0] ?? asked);
});
document.addEventListener("pointerdown", ({ target }) => {
  if (!opener.contains(target as Node)) opener.open = false;
});
opener.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !opener.open) return;
  event.stopPropagation();
  opener.open = false;
  opener.querySelector("summary")?.focus();
});
find("help").addEventListener("click", help.run);
for (const id of ["enter", "login"]) {
  find(id).addEventListener("click", async () => {
    const refused = await session.logIn();
    find("refused").textContent = refused;
    if (refused && find("empty").hidden) say({ text: refused, bad: true });
  });
}
find("logout").addEventListener("click", () => session.logOut(arvados));
addEventListener("hashchange", () => open(session.arrive()));
connect(() => watched);
listen(keys);
const wanted = session.arrive();
// In a task of its own: to load the script and to build the page takes long enough each.
setTimeout(() => open(wanted));
void askSite();
