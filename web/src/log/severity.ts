// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** How bad a line is, as far as its words tell. */

const ERROR = /\b(?:error|errors|fatal|critical|exception|traceback|panic|segfault|killed|failed)\b/i;
const WARNING = /\b(?:warn|warning|deprecated)\b/i;
/** "0 errors" is none. */
const NONE = /\b(?:0|no|without) (?:errors?|failed|warnings?)\b/i;
const FIRST = 400;

export type Severity = "" | "warning" | "error";

export function severity(text: string): Severity {
  const first = text.length > FIRST ? text.slice(0, FIRST) : text;
  if (ERROR.test(first)) return NONE.test(first) ? "" : "error";
  return WARNING.test(first) && !NONE.test(first) ? "warning" : "";
}
