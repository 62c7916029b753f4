// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** What keys do in the log. */

import {
  cursorCharLeft, cursorCharRight, cursorLineDown, cursorLineUp, cursorPageDown, cursorPageUp, selectAll,
  selectCharLeft, selectCharRight, selectDocEnd, selectDocStart, selectLineDown, selectLineUp, selectPageDown,
  selectPageUp,
} from "@codemirror/commands";
import type { Extension } from "@codemirror/state";
import { keymap } from "@codemirror/view";

/** What the page does for a key. */
export interface Commands {
  begin(): void;
  end(): void;
  /** The row of the cursor is used: a hole is filled, a line is named in the address. */
  use(): void;
  /** The cursor is moved up: the end is not followed any more. */
  up(): void;
}

export function keys(commands: Commands): Extension {
  const up = <T>(command: (target: T) => boolean) => (target: T): boolean => {
    commands.up();
    return command(target);
  };
  const done = (act: () => void) => (): boolean => {
    act();
    return true;
  };
  return keymap.of([
    { key: "ArrowUp", run: up(cursorLineUp), shift: up(selectLineUp) },
    { key: "ArrowDown", run: cursorLineDown, shift: selectLineDown },
    { key: "ArrowLeft", run: cursorCharLeft, shift: selectCharLeft },
    { key: "ArrowRight", run: cursorCharRight, shift: selectCharRight },
    { key: "PageUp", run: up(cursorPageUp), shift: up(selectPageUp) },
    { key: "PageDown", run: cursorPageDown, shift: selectPageDown },
    { key: "Home", run: done(commands.begin), shift: up(selectDocStart) },
    { key: "End", run: done(commands.end), shift: selectDocEnd },
    { key: "Mod-Home", run: done(commands.begin) },
    { key: "Mod-End", run: done(commands.end) },
    { key: "Mod-a", run: up(selectAll) },
    { key: "Enter", run: done(commands.use) },
  ]);
}
