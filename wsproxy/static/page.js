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
import { Logs } from "./logs.js";

const find = (id) => document.getElementById(id);

function streamUrl() {
  const url = new URL("v1/stream", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url.href;
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

/** The server is there, and says that what reaches it is no WebSocket: a proxy on the way strips it. */
async function explain() {
  const answer = await fetch("v1/stream").catch(() => undefined);
  if (answer?.status === 400 && (await answer.text()).includes("not websocket protocol")) {
    if (document.body.dataset.line !== "open") {
      say("A proxy on the way does not forward WebSockets (its Upgrade header).", true);
    }
  }
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
      if (state === "waiting") {
        say("Connecting again …");
        if (!detail.reached) explain();
      }
      if (state === "stopped" && detail.reason) say(`Stopped: ${detail.reason}`, true);
    },
  });
  events.object(uuid, {
    onobject: drawState,
    onerror: (error) => say(error.message, !error.temporary),
    onrevoked: ({ reason }) => say(`No longer readable: ${reason}`, true),
  });
  logs = new Logs(events, uuid, place, say);
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
