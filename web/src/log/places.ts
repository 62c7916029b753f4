// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Where in a file a time or a line is: found by reading little of it, or as little as can be. */

import type { LogFile } from "./file";
import { bytesOf, type Ranges } from "./ranges";

const PROBE_BYTES = 8192;
/** So near to a time the lines themselves are looked at. */
const NEAR_BYTES = 65536;
const STAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z/m;
const NEWLINE = 10;

/** What somebody typed who wants to go somewhere. */
export type Goal = { line: number } | { time: Clock };

/** A moment; without a day it is one of the log's first day, or of the next. */
export interface Clock {
  day: string;
  time: string;
}

/** A line number, a time of day or a whole time stamp. */
export function goalOf(text: string): Goal | undefined {
  const wanted = text.trim().replaceAll(",", "");
  if (/^\d+$/.test(wanted)) return { line: Number(wanted) };
  const found = /^(?:(\d{4}-\d\d-\d\d)[T ])?(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?Z?$/.exec(wanted);
  if (!found) return undefined;
  const [, day = "", hour = "", minute, second = "00"] = found;
  return { time: { day, time: `${hour.padStart(2, "0")}:${minute}:${second}` } };
}

/** The time stamp that a clock means in a log whose first line is of `first`; `local`: as clocks here say. */
export function stampOf({ day, time }: Clock, first: string, local: boolean): string {
  const begin = new Date(`${first.slice(0, 19)}Z`);
  const date = day || (local ? localDay(begin) : begin.toISOString().slice(0, 10));
  let moment = new Date(`${date}T${time}${local ? "" : "Z"}`);
  if (!day && moment < new Date(begin.getTime() - 1000)) moment = new Date(moment.getTime() + 86_400_000);
  return moment.toISOString().slice(0, 19);
}

/** The time stamp so long after another one. */
export function stampAfter(origin: string, time: string): string {
  const [hours = 0, minutes = 0, seconds = 0] = time.split(":").map(Number);
  const begin = Date.parse(`${origin.slice(0, 19)}Z`);
  return new Date(begin + 1000 * (seconds + 60 * (minutes + 60 * hours))).toISOString().slice(0, 19);
}

function localDay(date: Date): string {
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
}

/** A byte near the first line that is not before a time. */
export async function placeOf(file: LogFile, stamp: string, ranges: Ranges): Promise<number> {
  let [low, high] = [0, file.size];
  while (high - low > NEAR_BYTES) {
    const middle = Math.floor((low + high) / 2);
    const bytes = await ranges.bytes(file, middle, Math.min(high, middle + PROBE_BYTES));
    const text = new TextDecoder().decode(bytes.subarray(bytes.indexOf(NEWLINE) + 1));
    const found = STAMP.exec(text)?.[0];
    if (found !== undefined && found < stamp) low = middle;
    else high = middle;
  }
  return low;
}

/** The byte that a line begins with; lines are counted from 1. */
export async function offsetOfLine(
  file: LogFile, line: number, ranges: Ranges, progress: (share: number) => void, signal: AbortSignal,
): Promise<number | undefined> {
  if (line <= 1) return 0;
  const found = new AbortController();
  signal.addEventListener("abort", () => found.abort());
  let left = line - 1;
  let offset: number | undefined;
  await ranges.read(file, 0, file.size, (data, from, to) => {
    if (offset !== undefined) return;
    progress(to / file.size);
    const bytes = bytesOf(data);
    for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) {
      left -= 1;
      if (left > 0) continue;
      offset = from + at + 1;
      found.abort();
      return;
    }
  }, found.signal);
  return offset;
}
