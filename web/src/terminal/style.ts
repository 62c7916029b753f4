// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** How text looks: what SGR sequences (`ESC [ … m`) say, and nothing else of a terminal's language. */

/** A number of the palette of 256, or `#rrggbb`. */
export type Colour = number | string;

/** Each look is one object for ever, so that looks are compared by identity. */
export interface Style {
  readonly fg?: Colour;
  readonly bg?: Colour;
  readonly bold?: true;
  readonly dim?: true;
  readonly italic?: true;
  readonly underline?: true;
  readonly inverse?: true;
  readonly strike?: true;
  /** On top of what was before the part of the log that is known. */
  readonly onTop?: true;
}

/** Looks that are kept apart; a log with more of them (colour noise) loses the colours beyond. */
const MOST_STYLES = 4096;
const known = new Map<string, Style>();
const FIELDS = ["fg", "bg", "bold", "dim", "italic", "underline", "inverse", "strike", "onTop"] as const;

export const PLAIN: Style = {};
known.set("", PLAIN);
/** The look at a place of which nobody knows what was before it. */
export const UNKNOWN: Style = interned({ onTop: true });

function interned(wanted: Style): Style {
  const parts: string[] = [];
  const made: Record<string, unknown> = {};
  for (const field of FIELDS) {
    if (wanted[field] === undefined) continue;
    made[field] = wanted[field];
    parts.push(`${field}=${wanted[field]}`);
  }
  const key = parts.join();
  const found = known.get(key);
  if (found) return found;
  if (known.size >= MOST_STYLES) return PLAIN;
  known.set(key, made as Style);
  return made as Style;
}

const FLAGS: Record<number, Style> = {
  1: { bold: true },
  2: { dim: true },
  3: { italic: true },
  7: { inverse: true },
  9: { strike: true },
  21: { underline: true },
  22: { bold: undefined, dim: undefined },
  23: { italic: undefined },
  24: { underline: undefined },
  27: { inverse: undefined },
  29: { strike: undefined },
  39: { fg: undefined },
  49: { bg: undefined },
};

/** What a parameter that stands alone changes. */
function simple(code: number, sub: readonly number[]): Style | undefined {
  if (code === 4) return { underline: sub[1] === 0 ? undefined : true };
  if (code >= 30 && code <= 37) return { fg: code - 30 };
  if (code >= 40 && code <= 47) return { bg: code - 40 };
  if (code >= 90 && code <= 97) return { fg: code - 82 };
  if (code >= 100 && code <= 107) return { bg: code - 92 };
  return FLAGS[code];
}

function rgb(parts: readonly number[]): Colour {
  const two = (part = 0) => Math.min(255, part).toString(16).padStart(2, "0");
  return `#${two(parts[0])}${two(parts[1])}${two(parts[2])}`;
}

/** The colour that `5;n` or `2;r;g;b` names; undefined if it is none. */
function colour(mode: number | undefined, rest: readonly number[]): Colour | undefined {
  if (mode === 2) return rgb(rest);
  const [index] = rest;
  return mode === 5 && index !== undefined && index <= 255 ? index : undefined;
}

const EXTENDED: Record<number, "fg" | "bg" | "other"> = { 38: "fg", 48: "bg", 58: "other" };

/** The look after one SGR sequence; `parameters` is what stands between `[` and `m`. */
export function after(style: Style, parameters: string): Style {
  const parts = parameters.split(";").map((part) => part.split(":").map(Number));
  let next: Style = style;
  for (let at = 0; at < parts.length; at += 1) {
    const sub = parts[at] as number[];
    const code = sub[0] as number;
    const which = EXTENDED[code];
    if (code === 0) {
      next = PLAIN;
    } else if (which === undefined) {
      next = { ...next, ...simple(code, sub) };
    } else {
      let found: Colour | undefined;
      if (sub.length > 1) {
        // 38:2::r:g:b has a colour space before the colour, 38:2:r:g:b has none.
        found = colour(sub[1], sub.slice(sub[1] === 2 && sub.length > 5 ? 3 : 2));
      } else {
        const mode = parts[at + 1]?.[0];
        const length = mode === 2 ? 3 : mode === 5 ? 1 : 0;
        found = colour(mode, parts.slice(at + 2, at + 2 + length).map((part) => part[0] as number));
        at += 1 + length;
      }
      if (found !== undefined && which !== "other") next = { ...next, [which]: found };
    }
  }
  return interned(next);
}

/** What was unknown is `before`. */
export function onTopOf(before: Style, style: Style): Style {
  return style.onTop ? interned({ ...style, onTop: undefined, ...before, ...withoutGaps(style) }) : style;
}

function withoutGaps({ onTop: _, ...style }: Style): Style {
  return style;
}
