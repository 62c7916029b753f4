// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Bytes of log files from anywhere, by a connection of its own, one stretch after the other. */

import { ArvadosEvents, type LogMessage } from "arvados-events";
import type { LogFile } from "./file";

const IDLE_MS = 30_000;

/** Takes bytes in order: text or bytes, and the offset of the first and after the last. */
export type Take = (data: string | Uint8Array, from: number, to: number) => void;

/** How far a search is: lines found so far, and those that are new with their time stamps. */
export interface Step {
  at: number;
  count: number;
  lines: [number, string][];
}

const encoder = new TextEncoder();

export function bytesOf(data: string | Uint8Array): Uint8Array {
  return typeof data === "string" ? encoder.encode(data) : data;
}

export class Ranges {
  private readonly uuid: string;
  private readonly url: string;
  private readonly token: () => string;
  private connection: ArvadosEvents | null = null;
  private idle: ReturnType<typeof setTimeout> | undefined;
  private turn: Promise<unknown> = Promise.resolve();

  constructor(uuid: string, url: string, token: () => string) {
    this.uuid = uuid;
    this.url = url;
    this.token = token;
  }

  /** For what takes long, so that nobody else waits for it. */
  apart(): Ranges {
    return new Ranges(this.uuid, this.url, this.token);
  }

  /** Read `from` up to before `to`, or to the end that is there; resolves with where it ended. */
  read(file: LogFile, from: number, to: number, take: Take, signal?: AbortSignal): Promise<number> {
    const turn = this.turn.then(() => this.readNow(file, from, to, take, signal));
    this.turn = turn.catch(() => undefined);
    return turn;
  }

  /** All bytes of a range at once. */
  async bytes(file: LogFile, from: number, to: number, signal?: AbortSignal): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let length = 0;
    await this.read(file, from, to, (data) => {
      const bytes = bytesOf(data);
      parts.push(bytes);
      length += bytes.length;
    }, signal);
    const whole = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  /** Find a text at the server; false if it does not search, true when all is told. */
  async search(
    file: LogFile, text: string, from: number, to: number, signal: AbortSignal, take: (step: Step) => void,
  ): Promise<boolean> {
    const url = new URL("v1/search", document.baseURI);
    const query: Record<string, string> = {
      container: file.container, file: file.name, text, from: String(from), to: String(to),
    };
    if (this.uuid !== file.container) query.request = this.uuid;
    url.search = new URLSearchParams(query).toString();
    const headers = { Authorization: `Bearer ${this.token()}` };
    const answer = await fetch(url, { headers, signal }).catch(() => null);
    if (!answer?.ok || !answer.body) return false;
    let reached = from;
    let rest = "";
    const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    try {
      for (let part = await lines.read(); !part.done; part = await lines.read()) {
        const whole = (rest + part.value).split("\n");
        rest = whole.pop() ?? "";
        for (const line of whole) {
          const step = JSON.parse(line) as Step & { error?: string };
          if (step.error) throw new Error(step.error);
          take(step);
          reached = step.at;
        }
      }
    } catch (error) {
      if (signal.aborted) return true;
      throw error;
    }
    return reached > from;
  }

  private readNow(file: LogFile, from: number, to: number, take: Take, signal?: AbortSignal): Promise<number> {
    if (from >= to || signal?.aborted) return Promise.resolve(from);
    return new Promise((resolve, reject) => {
      let reached = from;
      const over = () => {
        subscription.close();
        signal?.removeEventListener("abort", done);
        clearTimeout(this.idle);
        this.idle = setTimeout(() => this.close(), IDLE_MS);
      };
      const done = () => {
        over();
        resolve(reached);
      };
      const failed = (why: string) => {
        over();
        reject(new Error(why));
      };
      const onlog = (log: LogMessage) => {
        if (log.container !== file.container || log.offset !== reached) return;
        let data = log.text ?? log.bytes ?? "";
        if (log.next > to) data = bytesOf(data).subarray(0, to - log.offset);
        reached = Math.min(log.next, to);
        take(data, log.offset, reached);
        if (reached >= to) done();
      };
      clearTimeout(this.idle);
      const subscription = this.line().log(
        this.uuid,
        {
          onlog,
          oncaughtup: done,
          onend: (end) => end.container === file.container && end.file === undefined && done(),
          ongap: (gap) => gap.file === file.name && failed(gap.reason),
          onerror: (error) => !error.temporary && failed(error.message),
          onrevoked: ({ reason }) => failed(reason),
        },
        {
          files: [file.name],
          from: { [file.name]: { offset: from, epoch: file.epoch } },
          container: file.container,
        },
      );
      signal?.addEventListener("abort", done);
    });
  }

  private line(): ArvadosEvents {
    this.connection ??= new ArvadosEvents({ url: this.url, token: this.token });
    return this.connection;
  }

  close(): void {
    clearTimeout(this.idle);
    this.connection?.close();
    this.connection = null;
  }
}

const NEWLINE = 10;

/** Only whole lines: `from` stays if a line begins there, and so does the end if one ends there. */
export function wholeLines(bytes: Uint8Array, begins: boolean, ends: boolean): [number, number] {
  const first = begins ? 0 : bytes.indexOf(NEWLINE) + 1;
  const last = ends ? bytes.length : bytes.lastIndexOf(NEWLINE) + 1;
  // A line that fills all of it is cut.
  return [first < bytes.length ? first : 0, last > first ? last : bytes.length];
}
