// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * Built into workbench.js, which a site may put into Workbench's page (docs/workbench.md): its socket
 * comes back after a loss, says while it is away, and shows what a container's row means for its
 * requests. Of the page it touches `WebSocket` alone, and of that one address. Where anything is not as
 * expected it does nothing.
 */

import { Gone, linkTo, Sign } from "./notice";
import { type Place, placeOf, tokenOf } from "./place";
import { Requests, type Shown, whereOf } from "./requests";
import { ReturningSocket } from "./socket";

const MARK = Symbol.for("arvados-nats-workbench");

type Fields = Record<string, unknown>;

/** Answers of Arvados to this token. */
function asking(place: Place, token: string): (path: string, question: Fields) => Promise<Response> {
  let controller: Promise<string> | null = null;
  const find = async () => ((await (await fetch(`${place.base}v1/site`)).json()) as { controller: string }).controller;
  return async (path, question) => {
    controller ??= find();
    controller.catch(() => (controller = null));
    const url = new URL(`/arvados/v1/${path}`, await controller);
    for (const [name, value] of Object.entries(question)) {
      url.searchParams.set(name, typeof value === "string" ? value : JSON.stringify(value));
    }
    return fetch(url, { headers: { Authorization: `Bearer ${token}` } });
  };
}

async function listed(answer: Response): Promise<Fields[]> {
  if (!answer.ok) throw new Error(`Arvados answers ${answer.status}`);
  const { items } = (await answer.json()) as { items?: Fields[] };
  return Array.isArray(items) ? items : [];
}

function returning(Native: typeof WebSocket, place: Place, url: string, token: string): WebSocket {
  const sign = new Sign(document);
  const gone = new Gone(document);
  const ask = asking(place, token);
  const check = async (shown: Shown) => {
    const { ok, status } = await ask(whereOf(shown), { select: ["uuid"], include_trash: "true" });
    if (ok || status === 404 || status === 403) gone.told(shown.uuid, ok);
  };
  const requests = new Requests(
    async (question) => listed(await ask("container_requests", question)),
    (frame) => socket.hand(frame),
    (shown) => void check(shown).catch(() => undefined),
  );
  const socket = new ReturningSocket(Native, url, {
    live: (yes, over) => sign.live(yes, over),
    event: (frame) => requests.event(frame),
    narrowed: () => requests.again(),
    missed: () => requests.again(),
  });
  return socket as unknown as WebSocket;
}

function install(): void {
  const script = document.currentScript;
  const place = script instanceof HTMLScriptElement ? placeOf(script.src, script.dataset.websocket) : null;
  const Native = window.WebSocket;
  if (!place || !Native || MARK in window) return;
  Object.defineProperty(window, MARK, { value: true });
  // It counts as a WebSocket to whoever asks, with the constants of one.
  Object.setPrototypeOf(ReturningSocket.prototype, Native.prototype);
  window.WebSocket = new Proxy(Native, {
    construct(target, wanted, as) {
      const token = tokenOf(place, wanted);
      if (token === null) return Reflect.construct(target, wanted, as) as object;
      return returning(target, place, String(wanted[0]), token);
    },
  });
  const ready = () => linkTo(document, place.base);
  if (document.body) ready();
  else addEventListener("DOMContentLoaded", ready, { once: true });
}

try {
  install();
} catch (error) {
  console.warn("arvados-nats: Workbench is left as it is", error);
}
