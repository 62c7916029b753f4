// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * A WebSocket that comes back. To the page it is one that opens once and stays: lost lines are made anew
 * with growing pauses, what was subscribed is subscribed again after the last row that came, and what
 * was missed follows. It closes when the page closes it, and when the server says that the token is dead.
 */

const SHORTEST_PAUSE_MS = 100;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const GOOD_AFTER_MS = 65_000;
/** The server sends something every minute; who has heard nothing for so long asks. */
const QUIET_MS = 75_000;
const ANSWER_MS = 15_000;
const LOOK_MS = 5_000;
const NOT_ADMITTED = 4502;
const CLIENTS_FAULT = 4500;
const MOST_COMMANDS = 16;
/** Answered by any server of this protocol, and matches nothing. */
const PROBE = ["subscribe", "unsubscribe"].map((method) =>
  JSON.stringify({ method, filters: [["event_type", "in", ["none"]]] }),
);

/** What the socket tells of itself. */
export interface Told {
  /** Whether the page hears what happens now; `over` if it never will again. */
  live(yes: boolean, over: boolean): void;
  /** An event has come. */
  event(frame: Record<string, unknown>): void;
  /** The token's user may read less than before. */
  narrowed(): void;
  /** The line was lost and is back: what was taken away meanwhile is not among the rows that follow. */
  missed(): void;
}

type Native = typeof WebSocket;

/** Some time of a growing pause, so that pages that lost one server do not come back in the same second. */
export function pauseBefore(attempt: number, random = Math.random): number {
  const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(attempt, 10));
  return Math.max(SHORTEST_PAUSE_MS, longest * random());
}

/** A command of the page, to be answered with all that came after a row, and to be told of access that is lost. */
export function after(command: string, row: number | null): string {
  return JSON.stringify({ ...JSON.parse(command), narrowed: true, ...(row !== null && { last_log_id: row }) });
}

export class ReturningSocket extends EventTarget {
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  binaryType: BinaryType = "blob";
  readonly protocol = "";
  readonly extensions = "";

  private line: WebSocket | null = null;
  private opened = false;
  private closed = false;
  private readonly commands: string[] = [];
  private lastRow: number | null = null;
  private attempt = 0;
  private due: ReturnType<typeof setTimeout> | undefined;
  private watch: ReturnType<typeof setInterval> | undefined;
  private heardAt = 0;
  private openedAt = 0;
  private probedAt = 0;
  /** The server could not tell whose the token is: an open line does not say that events come. */
  private doubtful = false;

  private readonly Native: Native;
  readonly url: string;
  private readonly told: Told;

  constructor(Native: Native, url: string, told: Told) {
    super();
    this.Native = Native;
    this.url = url;
    this.told = told;
    this.connect();
    this.watch = setInterval(() => this.look(), LOOK_MS);
    addEventListener("online", this.nudge);
    document.addEventListener("visibilitychange", this.nudge);
  }

  get readyState(): number {
    if (this.closed) return this.Native.CLOSED;
    const open = this.opened && this.line?.readyState === this.Native.OPEN;
    return open ? this.Native.OPEN : this.Native.CONNECTING;
  }

  get bufferedAmount(): number {
    return this.line?.bufferedAmount ?? 0;
  }

  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): void {
    if (typeof data === "string" && this.commands.length < MOST_COMMANDS && subscribes(data)) {
      this.commands.push(data);
      if (this.line?.readyState === this.Native.OPEN) this.line.send(after(data, null));
      return; // or it is sent when the line is there
    }
    this.line?.send(data as string);
  }

  close(code?: number, reason?: string): void {
    if (this.closed) return;
    const line = this.drop();
    if (code === undefined) line?.close();
    else line?.close(code, reason);
    this.told.live(true, true); // whoever closes knows
    this.finish(code ?? 1005, reason ?? "", true);
  }

  // The line.

  private connect(): void {
    clearTimeout(this.due);
    this.due = undefined;
    const line = (this.line = new this.Native(this.url));
    this.probedAt = 0;
    this.heardAt = Date.now();
    line.onopen = () => this.open();
    line.onmessage = (event) => this.take(event);
    line.onclose = (event) => this.lost(event.code, event.reason);
  }

  private open(): void {
    this.heardAt = this.openedAt = Date.now();
    if (!this.doubtful) this.told.live(true, false);
    for (const command of this.commands) this.line?.send(after(command, this.lastRow));
    if (!this.opened) {
      this.opened = true;
      this.tell(new Event("open"));
    } else this.told.missed();
  }

  private take(event: MessageEvent): void {
    this.heardAt = Date.now();
    this.probedAt = 0;
    const frame = parsed(event.data);
    if (frame?.event_type !== undefined) {
      this.good();
      if (Number.isSafeInteger(frame.id)) this.lastRow = frame.id as number;
    }
    if (frame?.narrowed === true) this.told.narrowed();
    else this.hand(event.data);
    if (frame?.event_type !== undefined) this.told.event(frame);
  }

  /** The page gets a frame, from the server or made here. */
  hand(data: unknown): void {
    this.tell(new MessageEvent("message", { data, origin: new URL(this.url).origin }));
  }

  private good(): void {
    this.attempt = 0;
    if (this.doubtful) this.told.live(true, false);
    this.doubtful = false;
  }

  private lost(code: number, reason: string): void {
    if (code >= CLIENTS_FAULT && code <= 4999 && code !== NOT_ADMITTED) {
      this.drop();
      this.told.live(false, true);
      this.finish(code, reason, true);
      return;
    }
    this.doubtful = code === NOT_ADMITTED;
    this.drop();
    this.told.live(false, false);
    this.due = setTimeout(() => this.connect(), pauseBefore(this.attempt++));
  }

  private drop(): WebSocket | null {
    const line = this.line;
    if (line) line.onopen = line.onmessage = line.onclose = null;
    this.line = null;
    return line;
  }

  private finish(code: number, reason: string, wasClean: boolean): void {
    this.closed = true;
    clearTimeout(this.due);
    clearInterval(this.watch);
    removeEventListener("online", this.nudge);
    document.removeEventListener("visibilitychange", this.nudge);
    this.tell(new CloseEvent("close", { code, reason, wasClean }));
  }

  // Time.

  /** The network is there again, or somebody looks: whoever waits need not, and a line is put to the test. */
  private readonly nudge = () => {
    if (document.hidden) return;
    if (this.due !== undefined) this.connect();
    else this.probe();
  };

  private look(): void {
    const now = Date.now();
    if (this.line?.readyState !== this.Native.OPEN) return;
    if (now - this.openedAt > GOOD_AFTER_MS) this.good();
    if (this.probedAt && now - this.probedAt > ANSWER_MS) {
      const line = this.line;
      this.lost(1006, "");
      line.close();
    } else if (now - this.heardAt > QUIET_MS) this.probe();
  }

  private probe(): void {
    if (this.line?.readyState !== this.Native.OPEN || this.probedAt) return;
    this.probedAt = Date.now();
    for (const command of PROBE) this.line.send(command);
  }

  private tell(event: Event): void {
    this.dispatchEvent(event);
    const handler = this[`on${event.type}` as "onopen"];
    if (typeof handler === "function") handler.call(this, event);
  }
}

function parsed(data: unknown): Record<string, unknown> | null {
  try {
    const frame: unknown = typeof data === "string" ? JSON.parse(data) : null;
    return frame && typeof frame === "object" ? (frame as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

function subscribes(command: string): boolean {
  return parsed(command)?.method === "subscribe";
}
