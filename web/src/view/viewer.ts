// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** The log on the screen: CodeMirror shows the rows of a sheet, and changes only where the sheet does. */

import { EditorState, Text, type ChangeSpec, Compartment, Annotation } from "@codemirror/state";
import { EditorView } from "@codemirror/view";
import type { Entry } from "../log/entries";
import type { LogFile } from "../log/file";
import type { Edit, Sheet } from "../log/sheet";
import { Colours } from "./colours";
import { decorations } from "./decorations";
import { gutters, type Times } from "./gutters";
import { keys, type Commands } from "./keys";
import logStyles from "./log.css?inline";

/** Pixels from the end at which it counts as reached. */
const NEAR = 4;

export interface Handlers extends Commands {
  /** Following the end begins or ends. */
  followed(following: boolean): void;
  /** Rows on the screen are others now. */
  moved(first: Entry | undefined, up: boolean): void;
  /** A line is clicked. */
  pick(entry: Entry): void;
  /** A hole is to be filled. */
  fill(hole: Entry, how: "before" | "after" | "first" | "last" | "download"): void;
}

export interface Picked {
  file: LogFile;
  from: number;
  to: number;
}

const fromLog = Annotation.define<boolean>();

export class Viewer {
  readonly view: EditorView;
  readonly colours = new Colours();
  sheet: Sheet | null = null;
  following = true;
  /** What is marked wherever it stands. */
  searched = "";
  /** Lines that a link names, or that were clicked: those that begin in this stretch of the file. */
  picked: Picked | null = null;
  times: Times = "off";
  names = false;
  /** The time stamp that relative times count from. */
  origin = "";
  private readonly handlers: Handlers;
  private readonly wrap = new Compartment();
  private wrapped = true;
  private lastTop = 0;
  private held = false;

  constructor(host: HTMLElement, handlers: Handlers) {
    this.handlers = handlers;
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(logStyles);
    root.adoptedStyleSheets = [this.colours.sheet, sheet];
    this.view = new EditorView({ root, parent: root, state: this.state(Text.empty) });
    const scroller = this.view.scrollDOM;
    scroller.addEventListener("scroll", () => this.scrolled());
    scroller.addEventListener("wheel", ({ deltaY }) => deltaY < 0 && this.upwards(), { passive: true });
    scroller.addEventListener("touchmove", () => this.leave(), { passive: true });
    this.view.contentDOM.addEventListener("pointerdown", () => (this.held = true));
    window.addEventListener("pointerup", () => this.released());
    this.view.contentDOM.addEventListener("click", () => this.clicked());
    this.view.contentDOM.addEventListener("dragstart", (event) => event.preventDefault());
    new ResizeObserver(() => this.stick()).observe(host);
  }

  private state(doc: Text): EditorState {
    return EditorState.create({
      doc,
      extensions: [
        EditorState.readOnly.of(true),
        EditorState.tabSize.of(8),
        EditorView.editable.of(false),
        EditorView.contentAttributes.of({
          tabindex: "0",
          "aria-label": "Log lines",
          "aria-readonly": "true",
        }),
        EditorView.clipboardOutputFilter.of((text, state) => this.copied(text, state)),
        this.wrap.of(this.wrapped ? EditorView.lineWrapping : []),
        keys(this.handlers),
        decorations(this),
        gutters(this),
        EditorView.updateListener.of((update) => {
          const byPerson = !update.transactions.some((one) => one.annotation(fromLog));
          if (update.selectionSet && byPerson) this.handlers.moved(this.firstShown, false);
        }),
      ],
    });
  }

  /** The entry of a row, counted from 0. */
  entry(index: number): Entry | undefined {
    return this.sheet?.entries[index];
  }

  fill(hole: Entry, how: "before" | "after" | "first" | "last" | "download"): void {
    this.handlers.fill(hole, how);
  }

  show(sheet: Sheet): void {
    this.sheet = sheet;
    this.view.setState(this.state(textOf(sheet.entries)));
    this.stick();
  }

  /** Let the sheet change, and change the document likewise. */
  change(act: (sheet: Sheet) => Edit[]): void {
    const { sheet } = this;
    if (!sheet) return;
    const rows = sheet.entries.length;
    const kept = this.beside();
    const edits = act(sheet);
    if (!edits.length) return;
    const changes = edits.map((edit) => this.spec(edit, rows));
    this.view.dispatch({ changes, annotations: fromLog.of(true) });
    if (kept) this.keep(kept);
    this.stick();
  }

  /** Who reads at a hole reads the line beside it: that one is to stay where it is. */
  private beside(): { entry: Entry; top: number } | null {
    if (this.following || this.firstShown?.kind === "line") return null;
    const { view } = this;
    const first = this.firstIndex;
    const index = this.shownRows().findIndex((entry) => entry.kind === "line");
    const entry = this.entry(first + index);
    if (index < 0 || !entry) return null;
    const at = view.state.doc.line(first + index + 1).from;
    const { top } = view.scrollDOM.getBoundingClientRect();
    return { entry, top: view.documentTop + view.lineBlockAt(at).top - top };
  }

  private keep({ entry, top }: { entry: Entry; top: number }): void {
    const index = this.sheet?.entries.indexOf(entry) ?? -1;
    if (index < 0) return;
    const { from } = this.view.state.doc.line(index + 1);
    this.view.dispatch({
      effects: EditorView.scrollIntoView(from, { y: "start", yMargin: top }),
      annotations: fromLog.of(true),
    });
  }

  private spec({ from, to, entries }: Edit, rows: number): ChangeSpec {
    const { doc } = this.view.state;
    if (rows === 0) return { from: 0, to: doc.length, insert: textOf(entries) };
    const start = from < rows ? doc.line(from + 1).from : doc.length;
    if (from === to) {
      // At the end of the row before: what is read behind it does not move.
      if (from === 0) return { from: 0, insert: textOf(entries).append(Text.of(["", ""])) };
      const end = from < rows ? start - 1 : doc.length;
      return { from: end, insert: Text.of(["", ""]).append(textOf(entries)) };
    }
    const end = doc.line(to).to;
    if (entries.length) return { from: start, to: end, insert: textOf(entries) };
    return to < rows ? { from: start, to: end + 1 } : { from: Math.max(0, start - 1), to: end };
  }

  /** Something besides the text is to be drawn anew. */
  redraw(): void {
    this.view.dispatch({ annotations: fromLog.of(true), effects: [] });
  }

  private stick(): void {
    if (!this.following || this.held) return;
    this.view.requestMeasure({
      key: this,
      read: () => null,
      write: () => {
        const { scrollDOM } = this.view;
        scrollDOM.scrollTop = scrollDOM.scrollHeight;
        this.lastTop = scrollDOM.scrollTop;
      },
    });
  }

  get atEnd(): boolean {
    const { scrollTop, clientHeight, scrollHeight } = this.view.scrollDOM;
    return scrollTop + clientHeight >= scrollHeight - NEAR;
  }

  private scrolled(): void {
    const { scrollTop } = this.view.scrollDOM;
    const up = scrollTop < this.lastTop;
    if (up && !this.atEnd) this.leave();
    else if (!up && scrollTop > this.lastTop && this.atEnd && !this.held) this.follow(false);
    this.lastTop = scrollTop;
    this.handlers.moved(this.firstShown, up);
  }

  /** The first row on the screen. */
  get firstShown(): Entry | undefined {
    return this.entry(this.firstIndex);
  }

  get firstIndex(): number {
    const { view } = this;
    const block = view.lineBlockAtHeight(view.scrollDOM.scrollTop - view.documentPadding.top);
    return view.state.doc.lineAt(block.from).number - 1;
  }

  /** Rows on the screen that satisfy a condition. */
  shownRows(): Entry[] {
    const { view } = this;
    const { scrollTop, clientHeight } = view.scrollDOM;
    const last = view.lineBlockAtHeight(scrollTop + clientHeight);
    const to = view.state.doc.lineAt(last.from).number;
    return this.sheet?.entries.slice(this.firstIndex, to) ?? [];
  }

  leave(): void {
    if (!this.following) return;
    this.following = false;
    this.handlers.followed(false);
  }

  /** Somebody goes up; who is at the top already has no other way to say so. */
  private upwards(): void {
    this.leave();
    if (this.view.scrollDOM.scrollTop === 0) this.handlers.moved(this.firstShown, true);
  }

  /** Follow the end; `move`: go there now. */
  follow(move = true): void {
    if (!this.following) {
      this.following = true;
      this.handlers.followed(true);
    }
    if (move) this.stick();
  }

  private released(): void {
    if (!this.held) return;
    this.held = false;
    if (!this.view.state.selection.main.empty) this.leave();
    this.stick();
  }

  private clicked(): void {
    const entry = this.current;
    if (entry?.kind === "line" && this.view.state.selection.main.empty) this.handlers.pick(entry);
  }

  isPicked({ kind, file, from }: Entry): boolean {
    const { picked } = this;
    return kind === "line" && picked?.file === file && picked.from <= from && from <= picked.to;
  }

  /** The lines of one file that are selected, or the line of the cursor. */
  get selected(): Picked | null {
    const { doc, selection } = this.view.state;
    const [first, last] = [selection.main.from, selection.main.to].map((at) => doc.lineAt(at).number - 1);
    const rows = this.sheet?.entries.slice(first, (last as number) + 1) ?? [];
    const [line] = rows.filter(({ kind }) => kind === "line");
    const end = line && rows.findLast(({ kind, file }) => kind === "line" && file === line.file);
    return line && end ? { file: line.file, from: line.from, to: end.from } : null;
  }

  /** Bring a row into view, and mark it. */
  goTo(entry: Entry, to = entry.from): void {
    const index = this.sheet?.entries.indexOf(entry) ?? -1;
    if (index < 0) return;
    this.leave();
    this.picked = { file: entry.file, from: entry.from, to };
    const { from } = this.view.state.doc.line(index + 1);
    this.view.dispatch({
      selection: { anchor: from },
      effects: EditorView.scrollIntoView(from, { y: "center" }),
      annotations: fromLog.of(true),
    });
  }

  /** The row that the cursor is in. */
  get current(): Entry | undefined {
    const { state } = this.view;
    return this.entry(state.doc.lineAt(state.selection.main.head).number - 1);
  }

  setWrap(wrapped: boolean): void {
    this.wrapped = wrapped;
    this.view.dispatch({ effects: this.wrap.reconfigure(wrapped ? EditorView.lineWrapping : []) });
    this.stick();
  }

  /** With time stamps as they stand in the log where those are shown. */
  private copied(text: string, state: EditorState): string {
    if (this.times === "off") return text;
    const { from, to } = state.selection.main;
    const first = state.doc.lineAt(from);
    const rows = text.split("\n");
    if (rows.length !== state.doc.lineAt(to).number - first.number + 1) return text;
    return rows
      .map((row, index) => {
        const stamp = this.entry(first.number - 1 + index)?.stamp;
        return stamp && (index > 0 || from === first.from) ? `${stamp} ${row}` : row;
      })
      .join("\n");
  }
}

function textOf(entries: readonly Entry[]): Text {
  return entries.length ? Text.of(entries.map((entry) => entry.text)) : Text.empty;
}
