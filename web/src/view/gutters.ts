// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Beside each row: when it was written, and which file it is of. Neither is copied. */

import type { Extension } from "@codemirror/state";
import { GutterMarker, gutter } from "@codemirror/view";
import type { Entry } from "../log/entries";
import { localDay } from "../log/places";
import { harmless } from "../terminal/text";

export type Times = "off" | "relative" | "local" | "utc";

export interface Beside {
  readonly times: Times;
  readonly names: boolean;
  readonly origin: string;
  entry(index: number): Entry | undefined;
}

class Label extends GutterMarker {
  private readonly text: string;
  private readonly name: string;

  constructor(text: string, name = "") {
    super();
    this.text = text;
    this.name = name;
    this.elementClass = name;
  }

  override eq(other: Label): boolean {
    return other.text === this.text && other.name === this.name;
  }

  override toDOM(): Node {
    return document.createTextNode(this.text);
  }
}

/** Files that stand beside each other differ; `name-error` is stderr's. */
const HUES: Record<string, number> = { stdout: 3, "crunch-run": 5, crunchstat: 4, hoststat: 1, "arv-mount": 2 };

/** The same file has the same colour in every run. */
function hue(name: string): number {
  const known = HUES[name];
  if (known !== undefined) return known;
  let sum = 0;
  for (const character of name) sum += character.charCodeAt(0);
  return sum % 6;
}

const two = (value: number) => String(value).padStart(2, "0");

/** A time stamp for people; of another day than `origin`, with the day. Relative ones count from there. */
export function timeText(stamp: string, times: Times, origin: string): string {
  if (!stamp || times === "off") return "";
  const date = new Date(`${stamp.slice(0, 19)}Z`);
  const begin = new Date(`${(origin || stamp).slice(0, 19)}Z`);
  if (times === "utc") {
    const day = stamp.slice(0, 10) === (origin || stamp).slice(0, 10) ? "" : `${stamp.slice(5, 10)} `;
    return day + stamp.slice(11, 23).replace(/Z$/, "");
  }
  if (times === "local") {
    const day = localDay(date) === localDay(begin) ? "" : `${localDay(date).slice(5)} `;
    return `${day}${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  }
  if (!origin) return "";
  const seconds = Math.round((date.getTime() - begin.getTime()) / 1000);
  const sign = seconds < 0 ? "-" : "";
  const whole = Math.abs(seconds);
  return `${sign}${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

export function gutters(beside: Beside): Extension {
  const at = (view: { state: { doc: { lineAt(at: number): { number: number } } } }, from: number) =>
    beside.entry(view.state.doc.lineAt(from).number - 1);
  return [
    gutter({
      class: "times",
      lineMarker: (view, line) => {
        const entry = beside.times === "off" ? undefined : at(view, line.from);
        return entry?.stamp ? new Label(timeText(entry.stamp, beside.times, beside.origin)) : null;
      },
      lineMarkerChange: () => true,
    }),
    gutter({
      class: "names",
      lineMarker: (view, line) => {
        const entry = beside.names ? at(view, line.from) : undefined;
        if (!entry || entry.kind !== "line") return null;
        const name = entry.file.name.replace(/\.txt$/, "");
        return new Label(harmless(name), name === "stderr" ? "name-error" : `name-${hue(name)}`);
      },
      lineMarkerChange: () => true,
    }),
  ];
}
