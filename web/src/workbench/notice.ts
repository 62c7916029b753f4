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

/** Says after a moment that the page hears nothing, and nothing when it hears. */
export class Sign {
  private box: HTMLElement | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly document: Document;

  constructor(document: Document) {
    this.document = document;
  }

  live(yes: boolean, over: boolean): void {
    if (!yes && !over) {
      this.timer ??= setTimeout(() => this.show("No live updates: connecting again …"), PATIENCE_MS);
      return;
    }
    clearTimeout(this.timer);
    this.timer = undefined;
    if (yes) this.hide();
    else this.show("No live updates any more: load the page again");
  }

  private hide(): void {
    this.box?.remove();
    this.box = null;
  }

  private show(text: string): void {
    if (!this.box) {
      this.box = this.document.createElement("div");
      this.box.id = "arvados-nats-sign";
      this.box.setAttribute("role", "status");
      Object.assign(this.box.style, BOX, { bottom: "12px", background: "#5b4200", color: "#fff" });
      this.document.body?.append(this.box);
    }
    this.box.textContent = text;
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
