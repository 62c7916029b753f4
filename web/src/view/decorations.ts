// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** What rows on the screen look like: colours, what is found, whose line it is, and holes to fill. */

import { RangeSetBuilder, type Extension } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, ViewPlugin, WidgetType, drawSelection, type ViewUpdate } from "@codemirror/view";
import type { Entry } from "../log/entries";
import { PLAIN } from "../terminal/style";
import { lower } from "../terminal/text";
import type { Colours } from "./colours";

/** What decorations need to know. */
export interface Shown {
  readonly colours: Colours;
  readonly searched: string;
  isPicked(entry: Entry): boolean;
  entry(index: number): Entry | undefined;
  fill(hole: Entry, how: "before" | "after" | "first" | "last" | "download"): void;
}

class HoleWidget extends WidgetType {
  private readonly hole: Entry;
  private readonly text: string;
  private readonly shown: Shown;

  constructor(hole: Entry, shown: Shown) {
    super();
    this.hole = hole;
    this.text = hole.text;
    this.shown = shown;
  }

  override eq(other: HoleWidget): boolean {
    return other.hole === this.hole && other.text === this.text;
  }

  override toDOM(): HTMLElement {
    const { hole, shown } = this;
    const box = document.createElement("span");
    box.className = "hole-text";
    box.append(this.text);
    for (const [how, label] of choices(hole)) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", () => shown.fill(hole, how));
      box.append(button);
    }
    return box;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

function choices(hole: Entry): ["before" | "after" | "first" | "last" | "download", string][] {
  if (hole.kind === "rest") return [["after", "show more"], ["download", "download"]];
  if (hole.to === Infinity) return [["after", "show"], ["last", "to the end"]];
  if (hole.from === 0) return [["before", "show"], ["first", "from the beginning"]];
  return [["after", "show from its beginning"], ["before", "show from its end"]];
}

const found = Decoration.mark({ class: "found" });
const lineOf = new Map<string, Decoration>();

function lineDecoration(classes: string): Decoration {
  let decoration = lineOf.get(classes);
  if (!decoration) {
    decoration = Decoration.line({ class: classes });
    lineOf.set(classes, decoration);
  }
  return decoration;
}

const marks = new Map<string, Decoration>();

function mark(name: string): Decoration {
  let decoration = marks.get(name);
  if (!decoration) {
    decoration = Decoration.mark({ class: name });
    marks.set(name, decoration);
  }
  return decoration;
}

function drawn(view: EditorView, shown: Shown): DecorationSet {
  const lines = new RangeSetBuilder<Decoration>();
  const sought = lower(shown.searched);
  let last = 0;
  for (const { from, to } of view.visibleRanges) {
    for (let at = from; at <= to; ) {
      const line = view.state.doc.lineAt(at);
      at = line.to + 1;
      if (line.number === last) continue;
      last = line.number;
      const entry = shown.entry(line.number - 1);
      if (!entry) continue;
      const classes = [entry.kind === "line" ? entry.severity : "hole"];
      if (shown.isPicked(entry)) classes.push("picked");
      const names = classes.filter(Boolean).join(" ");
      if (names) lines.add(line.from, line.from, lineDecoration(names));
      if (entry.kind === "line") inLine(lines, line.from, line.text, entry, sought, shown);
      else if (line.length) {
        const widget = new HoleWidget(entry, shown);
        lines.add(line.from, line.to, Decoration.replace({ widget }));
      }
    }
  }
  return lines.finish();
}

/** Colours and what is found, cut so that they come in order. */
function inLine(
  builder: RangeSetBuilder<Decoration>, start: number, text: string, entry: Entry, sought: string, shown: Shown,
): void {
  const ranges: { from: number; to: number; decoration: Decoration }[] = [];
  let from = 0;
  for (const { to, style } of entry.row?.runs ?? []) {
    const name = style === PLAIN ? "" : shown.colours.classOf(style);
    if (name && to > from) ranges.push({ from, to, decoration: mark(name) });
    from = to;
  }
  if (sought) {
    const lowered = lower(text);
    for (let at = lowered.indexOf(sought); at >= 0; at = lowered.indexOf(sought, at + sought.length)) {
      ranges.push({ from: at, to: at + sought.length, decoration: found });
    }
    ranges.sort((one, other) => one.from - other.from || other.to - one.to);
  }
  for (const range of ranges) {
    if (range.to <= text.length) builder.add(start + range.from, start + range.to, range.decoration);
  }
}

export function decorations(shown: Shown): Extension {
  const plugin = ViewPlugin.fromClass(
    class {
      decorations: DecorationSet;

      constructor(view: EditorView) {
        this.decorations = drawn(view, shown);
      }

      update(update: ViewUpdate): void {
        this.decorations = drawn(update.view, shown);
      }
    },
    { decorations: (value) => value.decorations },
  );
  return [drawSelection({ cursorBlinkRate: 0 }), plugin];
}
