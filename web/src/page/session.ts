// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * With which token one looks, and where it comes from: a login at Arvados, Workbench's own storage where
 * the page is served below Workbench's origin, or a paste. It stays in this tab.
 */

const TOKEN = "token";
const WANTED = "wanted";

/** What wsproxy tells of the cluster that it serves. */
export interface Site {
  cluster: string;
  controller: string;
  /** Where to log in, without what is asked for. */
  login: string;
  workbench: string;
  /** Why Arvados would not lead back here after a login; "" if it would. */
  refused?: string;
}

let known: Site | null = null;

/** What wsproxy tells; null while it cannot. `login`: it shall say whether Arvados would lead back here. */
export async function site(login = false): Promise<Site | null> {
  const query = login ? `?${new URLSearchParams({ return_to: home() })}` : "";
  try {
    const answer = await fetch(`v1/site${query}`);
    known = answer.ok ? ((await answer.json()) as Site) : known;
  } catch {
    // It is asked again by who logs in.
  }
  return known;
}

const PATHS: Record<string, string> = { xvhdp: "processes", dz642: "processes", "4zz18": "collections", j7d0g: "projects" };

/** Where Workbench shows an object; "" if nobody knows. */
export function inWorkbench(uuid: string | null | undefined): string {
  const path = PATHS[uuid?.split("-")[1] ?? ""];
  return known?.workbench && uuid && path ? new URL(`/${path}/${uuid}`, known.workbench).href : "";
}

function stored(): string {
  try {
    // Workbench keeps its token under this name, in one of the two.
    return localStorage.getItem("apiToken") ?? sessionStorage.getItem("apiToken") ?? "";
  } catch {
    return "";
  }
}

export function token(): string {
  return sessionStorage.getItem(TOKEN) ?? stored();
}

/** Whether the token is one that was pasted or logged in with here. */
export function own(): boolean {
  return sessionStorage.getItem(TOKEN) !== null;
}

export function keep(text: string): void {
  sessionStorage.setItem(TOKEN, text);
}

/** The page's address without anything that was asked of it. */
function home(): string {
  return `${location.origin}${location.pathname}`;
}

/** To Arvados, which sends the browser back with a token; resolves with why it would not. */
export async function logIn(): Promise<string> {
  const arvados = await site(true);
  if (!arvados) return "Arvados cannot be asked now; try again.";
  if (arvados.refused) {
    return `Arvados does not send anybody back to this page after a login (${arvados.refused}). Ask your administrator` +
      ` to add ${location.origin} to Login.TrustedClients. Until then, paste a token by the menu “Open”.`;
  }
  sessionStorage.setItem(WANTED, location.hash);
  const url = new URL(arvados.login);
  url.searchParams.set("return_to", home());
  location.assign(url.href);
  return "";
}

/** Arvados forgets the token as well. */
export function logOut(arvados: Site | null): void {
  const text = token();
  sessionStorage.removeItem(TOKEN);
  if (!arvados || !text) {
    location.assign(home());
    return;
  }
  const url = new URL("/logout", arvados.controller);
  url.searchParams.set("api_token", text);
  url.searchParams.set("return_to", home());
  location.assign(url.href);
}

const ANOTHERS =
  "This link logs you in as whoever made it, in place of your own login in this tab. Use it only if you trust the link.";

/** Whether a token in the address is to be used: it came by a login that began here, or replaces none. */
function accepted(text: string, query: URLSearchParams): boolean {
  const before = token();
  const begun = query.has("api_token") && sessionStorage.getItem(WANTED) !== null;
  return begun || !before || before === text || confirm(ANOTHERS);
}

/** Take the token out of the address, where Arvados or a link has put it, and what was wanted back in. */
export function arrive(): URLSearchParams {
  const query = new URLSearchParams(location.search);
  const given = new URLSearchParams(location.hash.slice(1));
  const text = query.get("api_token") ?? given.get(TOKEN);
  if (text === null) return given;
  if (accepted(text, query)) keep(text);
  given.delete(TOKEN);
  const wanted = query.has("api_token") ? (sessionStorage.getItem(WANTED) ?? "") : `#${given}`;
  sessionStorage.removeItem(WANTED);
  history.replaceState(null, "", `${home()}${wanted}`);
  return new URLSearchParams(wanted.slice(1));
}
