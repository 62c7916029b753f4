// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * Colours of terminal output, as spans of plain text. No HTML is ever made from a log.
 *
 * The state is carried from line to line, since a program may colour many lines at once. Only SGR
 * sequences (`ESC [ … m`) mean anything; other escape sequences are left out.
 */

// eslint-disable-next-line no-control-regex
const SEQUENCE = /\u001b(?:\[([0-9;:]*)([@-~])|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\^_])/g;

export const PLAIN = Object.freeze({ fg: null, bg: null, bold: false, dim: false, underline: false });

/** The state after one SGR sequence; `codes` is what stands between `[` and `m`. */
function after(state, codes) {
  const numbers = (codes || "0").split(/[;:]/).map((code) => Number(code || 0));
  let next = state;
  for (let at = 0; at < numbers.length; at += 1) {
    const code = numbers[at];
    if ((code === 38 || code === 48) && numbers[at + 1] === 5) {
      next = { ...next, [code === 38 ? "fg" : "bg"]: palette(numbers[at + 2]) };
      at += 2;
    } else if ((code === 38 || code === 48) && numbers[at + 1] === 2) {
      const rgb = numbers.slice(at + 2, at + 5).map((part) => Math.min(255, part || 0));
      next = { ...next, [code === 38 ? "fg" : "bg"]: `rgb(${rgb.join(",")})` };
      at += 4;
    } else {
      next = simple(next, code);
    }
  }
  return next;
}

function simple(state, code) {
  if (code === 0) return PLAIN;
  if (code === 1) return { ...state, bold: true };
  if (code === 2) return { ...state, dim: true };
  if (code === 4) return { ...state, underline: true };
  if (code === 22) return { ...state, bold: false, dim: false };
  if (code === 24) return { ...state, underline: false };
  if (code === 39) return { ...state, fg: null };
  if (code === 49) return { ...state, bg: null };
  if (code >= 30 && code <= 37) return { ...state, fg: palette(code - 30) };
  if (code >= 40 && code <= 47) return { ...state, bg: palette(code - 40) };
  if (code >= 90 && code <= 97) return { ...state, fg: palette(code - 82) };
  if (code >= 100 && code <= 107) return { ...state, bg: palette(code - 92) };
  return state;
}

/** A colour of the 256-colour palette: the first 16 are the page's own, by CSS variable. */
function palette(number) {
  if (!(number >= 0 && number <= 255)) return null;
  if (number < 16) return `var(--ansi-${number})`;
  if (number > 231) {
    const grey = 8 + 10 * (number - 232);
    return `rgb(${grey},${grey},${grey})`;
  }
  const level = (part) => (part ? 55 + 40 * part : 0);
  const index = number - 16;
  return `rgb(${level(Math.floor(index / 36))},${level(Math.floor(index / 6) % 6)},${level(index % 6)})`;
}

/** Spans `{text, style}` of one line that begins in `state`, and the state it ends in. */
export function spans(line, state = PLAIN) {
  const found = [];
  let from = 0;
  let style = state;
  for (const match of line.matchAll(SEQUENCE)) {
    if (match.index > from) found.push({ text: line.slice(from, match.index), style });
    if (match[2] === "m") style = after(style, match[1]);
    from = match.index + match[0].length;
  }
  if (from < line.length) found.push({ text: line.slice(from), style });
  return { spans: found, state: style };
}

/** The line without escape sequences, as find and merge read it. */
export function plain(line) {
  return line.includes("\u001b") ? line.replace(SEQUENCE, "") : line;
}
