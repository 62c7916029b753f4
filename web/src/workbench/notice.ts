// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** What is to be seen of the script in Workbench: a sign while nothing comes, and a link to the live log. */

import { shownAt } from "./requests";

const PATIENCE_MS = 2_000;
const LOOK_MS = 1_000;
const BOX = {
  position: "fixed",
  right: "12px",
  zIndex: "2000",
  padding: "4px 10px",
  borderRadius: "4px",
  font: "13px/1.4 sans-serif",
  boxShadow: "0 1px 4px rgba(0, 0, 0, .35)",
};

/** A line of text over the page's lower right corner. */
class Box {
  private box: HTMLElement | null = null;
  private readonly document: Document;
  private readonly id: string;
  private readonly bottom: string;

  constructor(document: Document, id: string, bottom: string) {
    this.document = document;
    this.id = id;
    this.bottom = bottom;
  }

  hide(): void {
    this.box?.remove();
    this.box = null;
  }

  show(text: string): void {
    if (!this.box) {
      this.box = this.document.createElement("div");
      this.box.id = this.id;
      this.box.setAttribute("role", "status");
      Object.assign(this.box.style, BOX, { bottom: this.bottom, background: "#5b4200", color: "#fff" });
      this.document.body?.append(this.box);
    }
    this.box.textContent = text;
  }
}

/** Says after a moment that the page hears nothing, and nothing when it hears. */
export class Sign {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly box: Box;

  constructor(document: Document) {
    this.box = new Box(document, "arvados-nats-sign", "12px");
  }

  live(yes: boolean, over: boolean): void {
    if (!yes && !over) {
      this.timer ??= setTimeout(() => this.box.show("No live updates: connecting again …"), PATIENCE_MS);
      return;
    }
    clearTimeout(this.timer);
    this.timer = undefined;
    if (yes) this.box.hide();
    else this.box.show("No live updates any more: load the page again");
  }
}

/** Says that what the page shows cannot be read any more: Workbench itself goes on showing it. */
export class Gone {
  private uuid: string | undefined;
  private watch: ReturnType<typeof setInterval> | undefined;
  private readonly box: Box;
  private readonly path: () => string;

  constructor(document: Document, path: () => string = () => location.pathname) {
    this.box = new Box(document, "arvados-nats-gone", "76px");
    this.path = path;
  }

  /** Whether Arvados has an object for this token. */
  told(uuid: string, readable: boolean): void {
    if (readable && uuid === this.uuid) this.end();
    if (readable || uuid !== shownAt(this.path())?.uuid) return;
    this.uuid = uuid;
    this.box.show("You can no longer read this: it was moved or deleted, or is not shared with you any more");
    this.watch ??= setInterval(() => shownAt(this.path())?.uuid === this.uuid || this.end(), LOOK_MS);
  }

  private end(): void {
    clearInterval(this.watch);
    this.watch = this.uuid = undefined;
    this.box.hide();
  }
}

/** A link on the page of a process to its log at wsproxy's own page. */
export function linkTo(document: Document, base: string): void {
  const link = document.createElement("a");
  link.id = "arvados-nats-log";
  link.textContent = "Live log";
  link.target = "_blank";
  link.rel = "noopener";
  Object.assign(link.style, BOX, { bottom: "44px", background: "#fff", color: "#0b5394" });
  const look = () => {
    const shown = shownAt(document.location.pathname);
    if (shown?.page !== "processes") link.remove();
    else {
      link.href = `${base}#request=${shown.uuid}`;
      if (!link.isConnected) document.body?.append(link);
    }
  };
  look();
  setInterval(look, LOOK_MS);
}
