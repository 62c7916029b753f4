// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** What a record of a container request or container says to people. */

import type { ObjectMessage } from "arvados-events";
import { find, make } from "./dom";

interface Container {
  uuid: string;
  state: string;
  progress?: number | null;
  exit_code?: number | null;
  runtime_status?: Record<string, string>;
}

export interface Shown extends Container {
  name?: string;
  container?: Container | null;
}

function fact(name: string, value: string | number, kind = ""): HTMLElement {
  return make("div", { class: "fact" }, make("span", {}, name), make("b", { class: kind }, String(value)));
}

export function drawState({ record }: ObjectMessage): void {
  const shown = record as unknown as Shown;
  const container = shown.container ?? shown;
  const facts: HTMLElement[] = [make("h1", {}, shown.name || shown.uuid), fact("state", shown.state)];
  if (container !== shown) facts.push(fact("container", container.state));
  if (container.progress && container.state === "Running") {
    facts.push(fact("progress", `${Math.round(container.progress * 100)} %`));
  }
  const code = container.exit_code;
  if (code !== null && code !== undefined) facts.push(fact("exit code", code, code === 0 ? "good" : "bad"));
  const trouble = container.runtime_status?.error ?? container.runtime_status?.warning;
  if (trouble) facts.push(fact("says", trouble, "bad"));
  document.title = shown.state ? `${shown.name || shown.uuid}: ${shown.state}` : shown.name || shown.uuid;
  find("state").replaceChildren(...facts);
}
