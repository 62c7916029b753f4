// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** How text of a log is taken apart: plain text, sequences of a terminal, and what would act. */

const LONGEST_STRING = 4096;
const STRING = `\\x1b[\\]PX^_][^\\x07\\x1b\\x9c\\n]{0,${LONGEST_STRING}}`;

export const TOKEN = new RegExp(
  [
    "([^\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]+)", // text
    "\\x1b\\[([0-?]{0,64})([ -/]{0,4})([@-~])", // CSI
    `${STRING}(?:[\\x07\\x9c]|\\x1b\\\\|(?=\\x1b))`, // OSC, DCS and the like
    "\\x1b([ -/]{0,4}[0-OQ-WYZ\\\\`-~])", // short sequences
    "([^])", // a character that would act
  ].join("|"),
  "gy",
);
const OPEN = new RegExp(`\\x1b(?:\\[[0-?]{0,64}[ -/]{0,4}|[ -/]{0,4}|${STRING.slice(4)}\\x1b?)?$`);

export const STAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z /;
export const STAMP_BEGUN = /^\d{1,4}(?:$|-(?:$|\d\d?(?:$|-(?:$|\d\d?(?:$|T[\d:]{0,8}(?:\.\d{0,9})?Z?$)))))/;

/** Where a sequence begins whose end may follow; the length of the text if none does. */
export function begun(text: string): number {
  const last = text.slice(-LONGEST_STRING - 4);
  const open = last.search(OPEN);
  return open < 0 ? text.length : text.length - last.length + open;
}
