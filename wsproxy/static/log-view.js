// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * A list of log lines of any length: only the rows on screen are in the document.
 *
 * Long lines are broken at the width of the view, so nothing scrolls sideways. The view follows the end
 * while it is scrolled to the end, and is left alone as soon as one scrolls up.
 */

const SPARE_ROWS = 20;

function rowOf(pieces, title) {
  const row = document.createElement("div");
  row.className = "row";
  if (title) row.title = title;
  for (const { text, style, found } of pieces) {
    const span = document.createElement(found ? "mark" : "span");
    span.textContent = text;
    if (style.fg) span.style.color = style.fg;
    if (style.bg) span.style.backgroundColor = style.bg;
    if (style.bold) span.style.fontWeight = "bold";
    if (style.dim) span.style.opacity = "0.7";
    if (style.underline) span.style.textDecoration = "underline";
    row.append(span);
  }
  return row;
}

/** The part of spans that lies between two character positions. */
function slice(spans, from, to) {
  const found = [];
  let at = 0;
  for (const span of spans) {
    const text = span.text.slice(Math.max(0, from - at), Math.max(0, to - at));
    if (text) found.push({ ...span, text });
    at += span.text.length;
    if (at >= to) break;
  }
  return found;
}

/** Spans cut where the sought text begins and ends, with those parts marked. */
function marked(spans, sought) {
  if (!sought) return spans;
  const whole = spans.map((span) => span.text).join("").toLowerCase();
  const found = [];
  let at = 0;
  for (let hit = whole.indexOf(sought); hit >= 0; hit = whole.indexOf(sought, at)) {
    found.push(...slice(spans, at, hit));
    found.push(...slice(spans, hit, hit + sought.length).map((span) => ({ ...span, found: true })));
    at = hit + sought.length;
  }
  return found.concat(slice(spans, at, whole.length));
}

export class LogView {
  /** `onfollow(following)` is told when following begins or ends, `ontop()` when the top is reached,
   *  `onbottom()` when the end of what is held is, `onpick(line)` when a line is clicked. */
  constructor(element, handlers) {
    this.element = element;
    this.handlers = handlers;
    this.space = document.createElement("div");
    this.space.className = "space";
    element.replaceChildren(this.space);
    this.source = { lines: [], spansOf: () => [] };
    this.following = true;
    this.sought = "";
    this.picked = null;
    element.addEventListener("scroll", () => this.scrolled());
    element.addEventListener("wheel", ({ deltaY }) => {
      // There is no scroll event for who is at the top already.
      if (deltaY < 0 && element.scrollTop === 0) handlers.ontop?.();
    });
    element.addEventListener("click", (event) => this.clicked(event));
    new ResizeObserver(() => this.measured()).observe(element);
    this.measure();
  }

  /** Show another list of lines. */
  show(source) {
    this.source = source;
    this.starts = [0];
    this.setFollowing(!this.handlers.isBehind?.());
    this.changed();
  }

  setFollowing(following) {
    if (this.following === following) return;
    this.following = following;
    this.handlers.onfollow?.(following);
  }

  measure() {
    const probe = rowOf([{ text: "m".repeat(100), style: {} }]);
    probe.style.visibility = "hidden";
    probe.style.width = "max-content";
    this.space.append(probe);
    const box = probe.getBoundingClientRect();
    probe.remove();
    this.rowHeight = box.height || 18;
    this.columns = Math.max(20, Math.floor((this.element.clientWidth - 24) / (box.width / 100 || 8)));
  }

  measured() {
    const columns = this.columns;
    this.measure();
    if (columns !== this.columns) this.changed();
    else if (this.following) this.moveTo(this.element.scrollHeight);
    this.draw();
  }

  /** Scroll by ourselves: it says nothing about what the reader wants. */
  moveTo(top) {
    this.element.scrollTop = top;
    this.placed = this.element.scrollTop;
  }

  /** The lines have changed: lay out again, once per frame. `older` lines were put before them. */
  changed(older = 0) {
    this.older = (this.older ?? 0) + older;
    if (this.planned) return;
    this.planned = requestAnimationFrame(() => {
      this.planned = undefined;
      this.layOut();
    });
  }

  layOut() {
    const anchor = this.firstShown === undefined ? 0 : this.firstShown + this.older;
    const moved = this.older > 0;
    this.older = 0;
    const { lines } = this.source;
    this.starts = new Array(lines.length + 1);
    let row = 0;
    for (let index = 0; index < lines.length; index += 1) {
      this.starts[index] = row;
      row += Math.max(1, Math.ceil(lines[index].searchable.length / this.columns));
    }
    this.starts[lines.length] = row;
    this.space.style.height = `${row * this.rowHeight}px`;
    if (this.following) this.moveTo(this.element.scrollHeight);
    else if (moved) this.moveTo(this.starts[Math.min(anchor, lines.length)] * this.rowHeight);
    this.draw();
  }

  /** Index of the line that a row belongs to. */
  lineAt(row) {
    let low = 0;
    let high = this.source.lines.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  draw() {
    const { lines } = this.source;
    const top = Math.max(0, Math.floor(this.element.scrollTop / this.rowHeight) - SPARE_ROWS);
    const rows = Math.ceil(this.element.clientHeight / this.rowHeight) + 2 * SPARE_ROWS;
    const drawn = [];
    if (lines.length) {
      for (let index = this.lineAt(top); index < lines.length; index += 1) {
        if (this.starts[index] > top + rows) break;
        drawn.push(...this.rowsOf(index));
      }
      this.firstShown = this.lineAt(top + SPARE_ROWS);
    }
    this.space.replaceChildren(...drawn);
  }

  rowsOf(index) {
    const line = this.source.lines[index];
    const spans = marked(this.source.spansOf(index), this.sought);
    const length = spans.reduce((sum, span) => sum + span.text.length, 0);
    const rows = [];
    for (let from = 0; from === 0 || from < length; from += this.columns) {
      const row = rowOf(slice(spans, from, from + this.columns), line.file);
      row.style.top = `${(this.starts[index] + from / this.columns) * this.rowHeight}px`;
      row.dataset.index = index;
      if (line === this.picked) row.classList.add("picked");
      rows.push(row);
    }
    return rows;
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    const atBottom = scrollTop + clientHeight >= scrollHeight - 2;
    // The view may have become lower since we scrolled: a message above it takes its room.
    if (scrollTop !== this.placed) this.setFollowing(atBottom && !this.handlers.isBehind?.());
    if (scrollTop < clientHeight) this.handlers.ontop?.();
    if (atBottom) this.handlers.onbottom?.();
    this.draw();
  }

  clicked(event) {
    const row = event.target.closest(".row");
    if (row && !String(getSelection())) this.handlers.onpick?.(this.source.lines[row.dataset.index]);
  }

  /** Mark `text` wherever it stands; `step` 1 or -1 goes to the next or former line with it. */
  find(text, step = 0) {
    this.sought = text.toLowerCase();
    const { lines } = this.source;
    const hits = [];
    if (this.sought) {
      lines.forEach((line, index) => {
        if (line.searchable.toLowerCase().includes(this.sought)) hits.push(index);
      });
    }
    if (hits.length && step) {
      const now = this.foundAt ?? -1;
      const next = step > 0 ? hits.find((hit) => hit > now) : hits.findLast((hit) => hit < now);
      this.goTo(next ?? (step > 0 ? hits[0] : hits[hits.length - 1]));
    }
    this.draw();
    return hits.length;
  }

  /** Bring a line into view, and mark it. */
  goTo(index) {
    this.foundAt = index;
    this.picked = this.source.lines[index];
    this.setFollowing(false);
    this.moveTo(this.starts[index] * this.rowHeight - this.element.clientHeight / 3);
    this.draw();
  }

  toEnd() {
    this.setFollowing(true);
    this.moveTo(this.element.scrollHeight);
    this.draw();
  }
}
