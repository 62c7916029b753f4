// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Elements of the page. Text is always text: no markup is made from what Arvados says, and nothing in it acts. */

import { harmless } from "../terminal/text";

export function find<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

type Attributes = Record<string, string | number | boolean | ((event: Event) => void)>;

/** An element; attributes that begin with "on" are handlers, those that are false are left out. */
export function make<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (value !== false) element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.map((child) => (typeof child === "string" ? harmless(child) : child)));
  return element;
}

/**
 * Let what is shown become what is wanted, and touch nothing else: what has the focus, is selected, clicked
 * or opened stays. Elements with `data-key` are found again wherever they stand.
 */
export function renew(parent: Node, wanted: readonly Node[]): void {
  for (const [at, node] of wanted.entries()) {
    const here = parent.childNodes[at] ?? null;
    const was = sameOf(parent, at, node);
    if (!was) parent.insertBefore(node, here);
    else {
      if (was !== here) parent.insertBefore(was, here);
      become(was, node);
    }
  }
  while (parent.childNodes.length > wanted.length) parent.lastChild?.remove();
}

const keyOf = (node: Node | undefined) => (node instanceof HTMLElement ? node.dataset.key : undefined);

function sameOf(parent: Node, at: number, node: Node): Node | undefined {
  const key = keyOf(node);
  if (key !== undefined) return [...parent.childNodes].slice(at).find((one) => keyOf(one) === key);
  const here = parent.childNodes[at];
  return here && here.nodeName === node.nodeName && keyOf(here) === undefined ? here : undefined;
}

function become(was: Node, node: Node): void {
  if (was.isEqualNode(node)) return;
  if (was instanceof Text) was.data = node.textContent ?? "";
  if (!(was instanceof Element) || !(node instanceof Element)) return;
  const people = was instanceof HTMLDetailsElement ? "open" : "";
  for (const { name } of [...was.attributes]) {
    if (!node.hasAttribute(name) && name !== people) was.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (name !== people && was.getAttribute(name) !== value) was.setAttribute(name, value);
  }
  renew(was, [...node.childNodes]);
}
