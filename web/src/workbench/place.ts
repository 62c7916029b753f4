// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Which socket of Workbench's page is the cluster's: that one and no other is touched. */

/** Where wsproxy is. */
export interface Place {
  /** Of its sockets, without a query. */
  socket: string;
  /** What its page and its answers are below. */
  base: string;
}

/** As the script's element says with `data-websocket`, or else beside the script; null if nowhere. */
export function placeOf(script: string, said?: string): Place | null {
  let url: URL;
  try {
    url = new URL(said || "websocket", script);
  } catch {
    return null;
  }
  const secure = url.protocol === "https:" || url.protocol === "wss:";
  if (!secure && url.protocol !== "http:" && url.protocol !== "ws:") return null;
  if (!url.pathname.endsWith("/websocket") || url.search || url.hash || url.username) return null;
  const rest = `${url.host}${url.pathname}`;
  return {
    socket: `${secure ? "wss" : "ws"}://${rest}`,
    base: `${secure ? "https" : "http"}://${rest.slice(0, -"websocket".length)}`,
  };
}

/** The token of a socket as Workbench opens it, to this very place; null for every other. */
export function tokenOf(place: Place, wanted: readonly unknown[]): string | null {
  const [address, ...more] = wanted;
  if (more.length || (typeof address !== "string" && !(address instanceof URL))) return null;
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  const token = url.searchParams.get("api_token");
  const exact = `${place.socket}?api_token=${token}`;
  return token && [...url.searchParams].length === 1 && url.href === new URL(exact).href ? token : null;
}
