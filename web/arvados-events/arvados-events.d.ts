// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Bytes `offset` up to before `next` of a log file: `text` where all is UTF-8, `bytes` otherwise. */
export interface LogMessage {
  /** With a container request: of the present attempt, or of a former one that has not ended. */
  container: string;
  file: string;
  epoch: number;
  offset: number;
  next: number;
  text?: string;
  bytes?: Uint8Array;
}

/** The state of an object; for a container request `record.container` is that of its container. */
export interface ObjectMessage {
  uuid: string;
  etag: string;
  record: Record<string, unknown>;
  cursor: string;
}

/** One change of one object. `verified`: Arvados' own word; false: it contradicts the database; null: not known. */
export interface EventMessage {
  id: number;
  uuid: string;
  event_type: string | null;
  event_at: string | null;
  created_at: string;
  object_uuid: string | null;
  object_kind: string;
  object_owner_uuid: string | null;
  verified: boolean | null;
  properties: Record<string, unknown>;
  cursor: string;
}

/** An object that was moved out of reach, unshared or deleted. */
export interface GoneMessage {
  uuid: string;
  object_kind: string;
  cursor: string;
}

export interface ErrorMessage {
  code: string;
  message: string;
  /** Of a subscription that had not begun: it is tried again, or gone. One that had begun goes on. */
  temporary: boolean;
}

/** Bytes or changes that are not to be had any more. */
export interface GapMessage {
  reason: string;
  container?: string;
  file?: string;
  epoch?: number;
  from?: number | null;
  to?: number | null;
  cursor?: string;
}

/** The end of a file, of a container (after all its files), or of a request. */
export interface EndMessage {
  /** Of the subscription. */
  id?: string;
  container?: string;
  request?: string;
  file?: string;
  epoch?: number;
  size?: number;
  state?: string;
  exit_code?: number | null;
  /** The saved log has exactly these bytes. */
  confirmed?: boolean;
}

export interface AttemptMessage {
  request: string;
  container: string;
  /** Counted from 1. */
  n: number;
}

export interface AttemptsMessage {
  request: string;
  /** By container, which attempt it was, counted from 1. */
  containers: Record<string, number>;
}

export interface Subscription {
  /** Ends it; no handler is called afterwards. */
  close(): void;
  /** All that was there has been given. */
  readonly live: boolean;
}

interface CommonHandlers {
  oncaughtup?(message: { cursor?: string }, subscription: Subscription): void;
  /** Many read the past now; it goes on when its turn comes. */
  onqueued?(message: { ahead: number }, subscription: Subscription): void;
  /** Without this handler the console is told. */
  onerror?(message: ErrorMessage, subscription: Subscription): void;
  onrevoked?(message: { reason: string }, subscription: Subscription): void;
}

export interface LogHandlers extends CommonHandlers {
  onlog?(message: LogMessage, subscription: Subscription): void;
  onattempt?(message: AttemptMessage, subscription: Subscription): void;
  /** All attempts that are known, where there was more than one. */
  onattempts?(message: AttemptsMessage, subscription: Subscription): void;
  ongap?(message: GapMessage, subscription: Subscription): void;
  onend?(message: EndMessage, subscription: Subscription): void;
}

export interface LogOptions {
  /** File names; all files if absent. */
  files?: string[];
  /** Where to begin in each file. */
  from?: Record<string, { offset: number; epoch?: number }>;
  /** Begin with so many last lines of each file. */
  tail?: number;
  /** Begin with this attempt of a request; the places in `from` belong to it. */
  container?: string;
}

export interface EventsOptions {
  owners?: string[];
  /** Also projects at any depth below the owners. */
  below?: boolean;
  objects?: string[];
  kinds?: string[];
  event_types?: string[];
  cursor?: string;
  begin?: "now" | "oldest";
}

export type State = "connecting" | "open" | "waiting" | "stopped";

export class ArvadosEvents {
  constructor(options: {
    /** The proxy's `/v1/stream`, `wss://…`. */
    url: string;
    /** Asked at each connect, so it may have been renewed meanwhile. */
    token: string | (() => string | Promise<string>);
    /** Of "waiting", `detail.reached` says whether there was a WebSocket at all. */
    onstate?(state: State, detail?: unknown): void;
  });
  log(uuid: string, handlers: LogHandlers, options?: LogOptions): Subscription;
  object(
    uuid: string,
    handlers: CommonHandlers & { onobject?(message: ObjectMessage): void },
    options?: { etag?: string },
  ): Subscription;
  events(
    handlers: CommonHandlers & {
      onevent?(message: EventMessage, subscription: Subscription): void;
      /** An object that may not be read any more. */
      ongone?(message: GoneMessage, subscription: Subscription): void;
      /** Less may be read than before, also where no object is named: look again. */
      onnarrowed?(message: object, subscription: Subscription): void;
      ongap?(message: GapMessage, subscription: Subscription): void;
    },
    options?: EventsOptions,
  ): Subscription;
  /** Present the token again on the open connection. */
  renew(): Promise<void>;
  /** Ends everything. */
  close(): void;
}
