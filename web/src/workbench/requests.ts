// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * Rows of containers, said again of the requests that show them. Workbench looks at a process when its
 * request's row comes, but a container that starts, warns or goes on changes its own row alone. Which
 * requests of the shown page are concerned is asked of Arvados with the page's token, once at a time and
 * seldom; of a process' page it is remembered.
 */

const PAUSE_MS = 5_000;
const MOST = 50;
const TRIES = 5;
const COLUMNS = ["uuid", "owner_uuid", "container_uuid", "requesting_container_uuid", "name", "state"];
const UUID = "[0-9a-z]{5}-[0-9a-z]{5}-[0-9a-z]{15}";

type Fields = Record<string, unknown>;

/** An object, and what kind of page shows it. */
export interface Shown {
  page: string;
  uuid: string;
}

/** What the page at a path shows. */
export function shownAt(path: string): Shown | null {
  const found = new RegExp(`^/(processes|projects|collections)/(${UUID})(?:/|$)`).exec(path);
  return found ? { page: found[1] ?? "", uuid: found[2] ?? "" } : null;
}

const KINDS: Record<string, string> = {
  processes: "arvados#containerRequest",
  projects: "arvados#group",
  collections: "arvados#collection",
};

/** A row as the server would send it, of an object of which nobody says what is new. */
export function update(page: string, item: Fields): string {
  const { uuid, owner_uuid = "", ...rest } = item;
  return JSON.stringify({
    event_type: "update",
    object_kind: KINDS[page],
    object_uuid: uuid,
    object_owner_uuid: owner_uuid,
    properties: { new_attributes: rest },
  });
}

/**
 * The row that makes a page look again, whatever it shows. A project's page looks when a request of the
 * project changes, All Processes when any does, the others at their own object.
 */
export function again(path: string): string | null {
  const shown = shownAt(path);
  if (!shown) return path === "/all_processes" ? update("processes", {}) : null;
  if (shown.page === "projects") return update("processes", { owner_uuid: shown.uuid });
  return update(shown.page, { uuid: shown.uuid });
}

/**
 * Whether what a page shows may be out of reach by a row: its own that tells that it went, or one of a
 * project that was moved, trashed or deleted.
 */
export function narrows(frame: Fields, uuid: string | undefined): boolean {
  const [was, is] = ["old_attributes", "new_attributes"].map((age) => (frame.properties as Fields | null)?.[age] ?? {});
  const differs = (name: string) => (was as Fields)[name] !== (is as Fields)[name];
  if (frame.object_uuid !== uuid && frame.object_kind !== "arvados#group") return false;
  return frame.event_type === "delete" || (frame.event_type === "update" && ["owner_uuid", "is_trashed"].some(differs));
}

/** Where Arvados answers whether a shown object is there for a token; it shows what is in the trash. */
export function whereOf(shown: Shown): string {
  const resource = { processes: "container_requests", projects: "groups" }[shown.page] ?? shown.page;
  return `${resource}/${shown.uuid}`;
}

/** What is asked about a page: of a process' page its request, of a project's those in it. */
export function question(shown: Shown, containers: string[]): Fields {
  const process = shown.page === "processes";
  const filters: unknown[] = [[process ? "uuid" : "owner_uuid", "=", shown.uuid]];
  if (!process) filters.push(["container_uuid", "in", containers]);
  return { filters, select: COLUMNS, limit: MOST, count: "none" };
}

export class Requests {
  private readonly waiting = new Set<string>();
  private known: { request: string; container: unknown } | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;
  private lookedAt = -Infinity;
  private looking: ReturnType<typeof setTimeout> | undefined;
  private readonly ask: (question: Fields) => Promise<Fields[]>;
  private readonly hand: (frame: string) => void;
  private readonly check: (shown: Shown) => void;
  private readonly path: () => string;

  constructor(
    ask: (question: Fields) => Promise<Fields[]>,
    hand: (frame: string) => void,
    check: (shown: Shown) => void,
    path: () => string = () => location.pathname,
  ) {
    this.ask = ask;
    this.hand = hand;
    this.check = check;
    this.path = path;
  }

  /** A row came: of a container, or of a request, which may have another container now. */
  event(frame: Fields): void {
    const uuid = frame.object_uuid;
    if (uuid === this.known?.request) this.known = null;
    if (narrows(frame, shownAt(this.path())?.uuid)) this.again();
    if (frame.object_kind !== "arvados#container" || typeof uuid !== "string") return;
    const shown = shownAt(this.path());
    if (!shown || shown.page === "collections") return;
    if (this.known?.request === shown.uuid) {
      if (this.known.container === uuid) this.hand(update("processes", { uuid: shown.uuid }));
      return;
    }
    if (this.waiting.size < MOST) this.waiting.add(uuid);
    if (this.timer === undefined) this.later(0);
  }

  /** Let the page look again, seldom. */
  again(): void {
    this.looking ??= setTimeout(() => {
      this.looking = undefined;
      this.lookedAt = Date.now();
      const [frame, shown] = [again(this.path()), shownAt(this.path())];
      if (frame) this.hand(frame);
      if (shown) this.check(shown);
    }, Math.max(0, this.lookedAt + PAUSE_MS - Date.now()));
  }

  private later(pause: number): void {
    this.timer = setTimeout(() => void this.look(), pause);
  }

  private async look(): Promise<void> {
    const shown = shownAt(this.path());
    const containers = [...this.waiting];
    this.waiting.clear();
    if (containers.length && shown && shown.page !== "collections") {
      try {
        const items = await this.ask(question(shown, containers));
        this.failures = 0;
        for (const item of items) this.found(shown.page, item, containers);
      } catch {
        this.failures += 1;
        if (this.failures < TRIES) containers.forEach((uuid) => this.waiting.add(uuid));
        else this.failures = 0;
      }
    }
    if (this.waiting.size || containers.length) this.later(PAUSE_MS);
    else this.timer = undefined;
  }

  private found(page: string, item: Fields, containers: string[]): void {
    if (page === "processes") this.known = { request: String(item.uuid), container: item.container_uuid };
    if (containers.includes(String(item.container_uuid))) this.hand(update("processes", item));
  }
}
