// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** One container of a process, and what is held of its logs. */

import { LogFile } from "../log/file";

/** What people look for first, in the order in which it is offered. */
export const MAIN = ["stderr.txt", "stdout.txt", "crunch-run.txt"];

/** Which files are shown: `main`, `all`, or the name of one. */
export type View = string;

export interface Place {
  file?: string | null;
  offset?: number;
  /** Where the last line of a range begins. */
  to?: number;
  view?: View | null;
}

export interface Word {
  text: string;
  bad: boolean;
}

/** One container, and what is held of its logs. */
export class Attempt {
  container: string | undefined;
  readonly n: number;
  readonly files = new Map<string, LogFile>();
  /** Its log has been asked for, or comes with that of the request. */
  read = false;
  /** No more comes of it. */
  over = false;
  word: Word;
  /** What is not to be had, in words. */
  readonly gaps: string[] = [];

  constructor(container: string | undefined, n: number) {
    this.container = container;
    this.n = n;
    this.word = { text: n > 1 ? `Attempt ${n}` : "", bad: false };
  }

  file(name: string, epoch: number): LogFile {
    let file = this.files.get(name);
    if (!file) {
      file = new LogFile(this.container ?? "", name);
      file.epoch = epoch;
      this.files.set(name, file);
    }
    if (file.epoch !== epoch) file.clear(epoch);
    return file;
  }
}
