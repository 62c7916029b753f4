// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Keys of the page, and the list of them that `?` shows. */

import { find, make } from "./dom";

export interface Key {
  key: string;
  /** What it does, for people. */
  does: string;
  run(): void;
}

/** Keys that the log itself has while it is focused. */
const IN_LOG: [string, string][] = [
  ["Home", "to the beginning of the log"],
  ["End", "to its end, and follow it"],
  ["↑ ↓ PgUp PgDn", "move the cursor"],
  ["Shift + ↑ ↓", "select lines"],
  ["Ctrl + C", "copy what is selected"],
  ["Enter", "on a hole: load it; on a line: name it in the address"],
];
const SINGLE = "single-keys";

export function singleKeys(): boolean {
  return localStorage.getItem(SINGLE) !== "off";
}

export function showKeys(keys: readonly Key[]): void {
  const dialog = find<HTMLDialogElement>("keys");
  const row = (key: string, does: string) =>
    make("tr", {}, make("td", {}, make("kbd", {}, key)), make("td", {}, does));
  const box = make("input", { type: "checkbox", checked: singleKeys() });
  box.addEventListener("change", () => localStorage.setItem(SINGLE, box.checked ? "on" : "off"));
  dialog.replaceChildren(
    make("h2", { id: "keys-title" }, "Keys"),
    make(
      "table",
      {},
      make("tbody", {}, ...keys.map(({ key, does }) => row(key, does)), ...IN_LOG.map(([key, does]) => row(key, does))),
    ),
    make("p", {}, make("label", {}, box, " Single letters act (not while you type)")),
    make("button", { type: "button", onclick: () => dialog.close() }, "Close"),
  );
  dialog.showModal();
}

/** Let keys act, except where somebody types. */
export function listen(keys: readonly Key[]): void {
  document.addEventListener("keydown", (event) => {
    const target = event.composedPath()[0];
    const types = target instanceof HTMLElement && /^(?:INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
    if (types || event.ctrlKey || event.metaKey || event.altKey) return;
    if (find<HTMLDialogElement>("keys").open) return;
    const found = keys.find(({ key }) => key === event.key);
    if (!found || (found.key !== "?" && !singleKeys())) return;
    event.preventDefault();
    found.run();
  });
}
