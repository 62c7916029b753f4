// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Buttons, fields and keys that act on the process that is shown. */

import type { Times } from "../view/gutters";
import { find } from "./dom";
import type { Key } from "./keys";
import { wishToBeTold } from "./notice";
import type { Watch } from "./watch";

export function connect(watched: () => Watch | undefined): void {
  const sought = find<HTMLInputElement>("sought");
  let typed: ReturnType<typeof setTimeout>;
  const on = (id: string, event: string, act: (watch: Watch) => unknown) =>
    find(id).addEventListener(event, () => {
      const watch = watched();
      if (watch) act(watch);
    });
  find("finder").addEventListener("submit", (event) => {
    event.preventDefault();
    if (document.activeElement?.id === "goto") void watched()?.goTo(find<HTMLInputElement>("goto").value);
    else void watched()?.logs.findNext(1);
  });
  sought.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => watched()?.logs.search(sought.value), 150);
  });
  sought.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    clearTimeout(typed);
    const logs = watched()?.logs;
    if (logs && logs.viewer.searched !== sought.value) logs.search(sought.value);
    void logs?.findNext(event.shiftKey ? -1 : 1);
  });
  find<HTMLInputElement>("goto").addEventListener("input", (event) =>
    (event.target as HTMLInputElement).setCustomValidity(""),
  );
  on("former", "click", ({ logs }) => logs.findNext(-1));
  on("stop", "click", ({ logs }) => logs.stop());
  on("follow", "click", ({ logs }) => logs.toEnd());
  on("beginning", "click", ({ logs }) => logs.reading.toBeginning());
  on("times", "change", (watch) => watch.setTimes(find<HTMLSelectElement>("times").value as Times));
  on("least", "change", (watch) => watch.setLeast(Number(find<HTMLSelectElement>("least").value)));
  on("wrap", "change", ({ logs }) => logs.viewer.setWrap(find<HTMLInputElement>("wrap").checked));
  on("smaller", "click", (watch) => watch.resize(-1));
  on("larger", "click", (watch) => watch.resize(1));
  on("plot", "click", (watch) => watch.showPlots());
  on("link", "click", (watch) => watch.copyLink());
  on("save", "click", ({ logs }) => logs.save());
  on("saveall", "click", ({ logs }) => logs.save("all"));
  wishToBeTold(find<HTMLInputElement>("tell"));
  find("more").addEventListener("click", () => {
    const open = find("finder").classList.toggle("open");
    find("more").setAttribute("aria-expanded", String(open));
  });
  find("files").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    watched()?.step(by);
  });
  find("attempts").addEventListener("change", () => {
    const n = Number(find("attempts").querySelector("select")?.value);
    const attempt = [...(watched()?.logs.attempts.values() ?? [])].find((one) => one.n === n);
    if (attempt) watched()?.logs.showAttempt(attempt);
  });
}

/** Put the cursor into a field; on a phone it may be among the tools that are folded. */
function reach(id: string): void {
  if (!find(id).offsetParent) find("more").click();
  find(id).focus();
}

/** Keys that act on the process that is shown. */
export function keysOf(watched: () => Watch | undefined): Key[] {
  const key = (name: string, does: string, act: (watch: Watch) => unknown): Key => ({
    key: name,
    does,
    run: () => {
      const watch = watched();
      if (watch) act(watch);
    },
  });
  return [
    {
      key: "/",
      does: "find in the whole log; in the list, a name",
      run: () => (watched() ? reach("sought") : document.querySelector<HTMLElement>("#overview input")?.focus()),
    },
    key("n", "the next line found", ({ logs }) => logs.findNext(1)),
    key("N", "the former line found", ({ logs }) => logs.findNext(-1)),
    key("f", "follow the end", ({ logs }) => logs.toEnd()),
    key("b", "to the beginning", ({ logs }) => logs.reading.toBeginning()),
    key(":", "go to a line or a time", () => reach("goto")),
    key("[", "the tab before", (watch) => watch.step(-1)),
    key("]", "the tab after", (watch) => watch.step(1)),
    key("t", "time stamps: off, relative, local, UTC", (watch) => watch.nextTimes()),
    key("w", "wrap long lines", () => find("wrap").click()),
    key("e", "errors only, or all lines", (watch) => {
      const least = watch.logs.least ? 0 : 2;
      find<HTMLSelectElement>("least").value = String(least);
      watch.setLeast(least);
    }),
    key("p", "plots of what the container uses", (watch) => watch.showPlots()),
    key("l", "copy a link to the lines that are selected", (watch) => watch.copyLink()),
    key("d", "download what is shown", ({ logs }) => logs.save()),
    key("D", "download all files, as a tar file", ({ logs }) => logs.save("all")),
    key("+", "larger text", (watch) => watch.resize(1)),
    key("-", "smaller text", (watch) => watch.resize(-1)),
    key("Escape", "stop what takes long", ({ logs }) => logs.stop()),
  ];
}
