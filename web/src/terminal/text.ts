// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Text of bytes, how wide it is, and what is made visible since it would act on whoever reads it. */

import { eastAsianWidth } from "get-east-asian-width";

// eslint-disable-next-line no-control-regex
export const ASCII = /^[\x00-\x7f]*$/;
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Bytes of the character that begins at `at`, 0 if none does; negative: it may, with more bytes. */
function characterAt(bytes: Uint8Array, at: number): number {
  const first = bytes[at] as number;
  if (first < 0x80) return 1;
  const length = first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xf0 && first < 0xf5 ? 4 : 0;
  let low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  let high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  for (let index = 1; index < length; index += 1) {
    const byte = bytes[at + index];
    if (byte === undefined) return -1;
    if (byte < low || byte > high) return 0;
    [low, high] = [0x80, 0xbf];
  }
  return length;
}

/** How many bytes at the end may be the beginning of a character. */
export function openBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= 3 && back <= bytes.length; back += 1) {
    const at = bytes.length - back;
    if ((bytes[at] as number) >= 0xc0) return characterAt(bytes, at) < 0 ? back : 0;
    if ((bytes[at] as number) < 0x80) return 0;
  }
  return 0;
}

const shownByte = (byte: number) => `\\x${byte.toString(16).padStart(2, "0")}`;

/** Text of bytes; a byte that is not UTF-8 is shown as `\xNN`. */
export function decoded(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    const parts: string[] = [];
    let from = 0;
    for (let at = 0; at < bytes.length; ) {
      const length = characterAt(bytes, at);
      if (length <= 0) {
        if (at > from) parts.push(strict.decode(bytes.subarray(from, at)));
        parts.push(shownByte(bytes[at] as number));
        from = at + 1;
      }
      at += Math.max(1, length);
    }
    if (from < bytes.length) parts.push(strict.decode(bytes.subarray(from)));
    return parts.join("");
  }
}

/** Wide since Unicode 15, 16 or 17, and in the same words in Python, whose own table may be older. */
const WIDE_SINCE =
  /^[\u2630-\u2637\u268a-\u268f\u4dc0-\u4dff\u{1d300}-\u{1d356}\u{1d360}-\u{1d376}\u{1f6d8}\u{1f6dc}\u{1fa70}-\u{1faff}]/u;

/** Columns of a character on a terminal: 0 if it joins the one before it. */
export function columns(character: string): number {
  const code = character.codePointAt(0) as number;
  if (code < 0x300) return 1;
  if (/^[\p{Mn}\p{Me}\p{Cf}]/u.test(character)) return 0;
  return WIDE_SINCE.test(character) ? 2 : eastAsianWidth(code);
}

/** What would act on whoever reads, or turn text around; not tabs and line ends. */
// eslint-disable-next-line no-control-regex
export const SPECIAL = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/;
const EACH_SPECIAL = new RegExp(SPECIAL, "g");
/** Colours, titles and the like. */
// eslint-disable-next-line no-control-regex
const SEQUENCE = /\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\x9c]*(?:[\x07\x9c]|\x1b\\|(?=\x1b))|[ -/]*[0-~])/g;

/** A text without the sequences of a terminal. */
export function withoutSequences(text: string): string {
  return text.includes("\x1b") ? text.replace(SEQUENCE, "") : text;
}

/** With ASCII letters in lower case, as the server's find has them; nothing else changes, so that places stay. */
export function lower(text: string): string {
  return ASCII.test(text) ? text.toLowerCase() : text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/** A name or message of anybody's: what would act in it is left out, or something to see. */
export function harmless(text: string): string {
  return withoutSequences(text).replaceAll("\r\n", "\n").replace(EACH_SPECIAL, visible);
}

/** A control character as something to see. */
export function visible(character: string): string {
  const code = character.charCodeAt(0);
  if (code < 0x20) return `^${String.fromCharCode(code + 0x40)}`;
  if (code === 0x7f) return "^?";
  return `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
}
