// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** A notification of the browser when a process is over, if the person asks for it. */

import { nameOf, verdict, type Process } from "./state";

const WANTED = "notify";

function wanted(): boolean {
  return localStorage.getItem(WANTED) === "on" && "Notification" in window && Notification.permission === "granted";
}

/** A box by which a person asks for it; the browser asks them, too. */
export function wishToBeTold(box: HTMLInputElement): void {
  // Where the page comes by http there are none.
  box.disabled = !("Notification" in window);
  box.checked = wanted();
  box.addEventListener("change", async () => {
    if (box.checked && (await Notification.requestPermission()) !== "granted") box.checked = false;
    localStorage.setItem(WANTED, box.checked ? "on" : "off");
  });
}

/** Which processes were seen waiting or running, so that their end is news. */
export class Notice {
  private readonly waited = new Set<string>();

  look(process: Process): void {
    const { uuid } = process;
    const { mood, word, why } = verdict(process, Date.now());
    if (mood === "running" || mood === "waiting") this.waited.add(uuid);
    else if (this.waited.delete(uuid) && wanted()) {
      const note = new Notification(`${word}: ${nameOf(uuid, process.name)}`, { body: why, tag: uuid });
      note.addEventListener("click", () => {
        window.focus();
        location.hash = `#${new URLSearchParams({ request: uuid })}`;
        note.close();
      });
    }
  }
}
