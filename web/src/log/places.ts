// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Where in a file a time or a line is: found by reading little of it, or as little as can be. */

import type { LogFile } from "./file";
import { bytesOf, type Ranges } from "./ranges";

const PROBE_BYTES = 8192;
/** Where so many lines have no time stamp (a long trace of a stack), more is read. */
const LONGEST_PROBE = 1024 * 1024;
/** So near to a time the lines themselves are looked at. */
const NEAR_BYTES = 65536;
const STAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z/;
const STAMP_LENGTH = 30;
const NEWLINE = 10;
const HALF_YEAR_MS = 183 * 86_400_000;

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
  const found = /^(?:((?:\d{4}-)?\d\d-\d\d)[T ])?(\d{1,4}):([0-5]\d)(?::([0-5]\d)(?:\.\d+)?)?Z?$/.exec(wanted);
  if (!found) return undefined;
  const [, day = "", hour = "", minute, second = "00"] = found;
  return { time: { day, time: `${hour.padStart(2, "0")}:${minute}:${second}` } };
}

/** The time stamp that a clock means in a log whose first line is of `first`; `local`: as clocks here say. */
export function stampOf({ day, time }: Clock, first: string, local: boolean): string {
  const begin = new Date(`${first.slice(0, 19)}Z`);
  const today = local ? localDay(begin) : begin.toISOString().slice(0, 10);
  const date = day.length === 5 ? `${today.slice(0, 5)}${day}` : day || today;
  let moment = new Date(`${date}T${time}${local ? "" : "Z"}`);
  if (Number.isNaN(moment.getTime())) throw new Error("there is no such time of day");
  if (!day && moment < new Date(begin.getTime() - 1000)) moment = new Date(moment.getTime() + 86_400_000);
  // A day without its year is that of the log: one half a year before its beginning is of the next year.
  if (day.length === 5 && begin.getTime() - moment.getTime() > HALF_YEAR_MS) moment.setFullYear(moment.getFullYear() + 1);
  return moment.toISOString().slice(0, 19);
}

/** The time stamp so long after another one. */
export function stampAfter(origin: string, time: string): string {
  const [hours = 0, minutes = 0, seconds = 0] = time.split(":").map(Number);
  const begin = Date.parse(`${origin.slice(0, 19)}Z`);
  return new Date(begin + 1000 * (seconds + 60 * (minutes + 60 * hours))).toISOString().slice(0, 19);
}

export function localDay(date: Date): string {
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
}

/** The byte that the first line begins with that is not before a time. */
export async function placeOf(file: LogFile, stamp: string, ranges: Ranges): Promise<number> {
  let [low, high, place] = [0, file.size, Math.max(0, file.size - 1)];
  while (high - low > NEAR_BYTES) {
    const middle = Math.floor((low + high) / 2);
    const found = await stampFrom(file, middle, high, ranges);
    if (found && found.stamp < stamp) low = found.at;
    else [high, place] = [middle, found?.at ?? place];
  }
  const near = await ranges.bytes(file, low, high);
  for (const found of stamps(near, 0)) if (found.stamp >= stamp) return low + found.at;
  return place;
}

interface Stamped {
  at: number;
  stamp: string;
}

/** The first line with a time stamp that begins behind a byte. */
async function stampFrom(file: LogFile, from: number, high: number, ranges: Ranges): Promise<Stamped | undefined> {
  for (let length = PROBE_BYTES; ; length *= 4) {
    const to = Math.min(high, from + length);
    const bytes = await ranges.bytes(file, from, to);
    const begin = bytes.indexOf(NEWLINE) + 1;
    for (const { at, stamp } of begin ? stamps(bytes, begin) : []) return { at: from + at, stamp };
    if (to === high || length >= LONGEST_PROBE) return undefined;
  }
}

function* stamps(bytes: Uint8Array, begin: number): Iterable<Stamped> {
  for (let at = begin, end = 0; end >= 0; at = end + 1) {
    const stamp = STAMP.exec(new TextDecoder().decode(bytes.subarray(at, at + STAMP_LENGTH)))?.[0];
    if (stamp) yield { at, stamp };
    end = bytes.indexOf(NEWLINE, at);
  }
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
