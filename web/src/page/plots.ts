// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** What a container used, over time: from the beginning of its statistics, and live. */

import type { LogMessage } from "arvados-events";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { size } from "../log/entries";
import type { LogFile } from "../log/file";
import type { Ranges } from "../log/ranges";
import { Series, Stats } from "../log/stats";
import { make, renew } from "./dom";

const NOT_YET = "There are no statistics yet. A container writes them every ten seconds.";
const NONE = "There are no statistics of this container.";
const DRAW_MS = 500;
const HEIGHT = 150;

type Format = (value: number) => string;

interface Chart {
  title: string;
  names: readonly string[];
  format: Format;
}

const rate: Format = (value) => (value ? `${size(value)}/s` : "0");
const amount: Format = (value) => (value ? size(value) : "0");
const HOST = "node: ";
const LIMIT = "memory limit";
const both = (...names: string[]) => [...names, ...names.map((name) => `${HOST}${name}`)];
const CHARTS: readonly Chart[] = [
  { title: "CPU, cores", names: both("cpu"), format: (value) => value.toFixed(2) },
  { title: "Memory", names: ["memory", LIMIT, `${HOST}memory`], format: amount },
  { title: "Network", names: both("network received", "network sent"), format: rate },
  { title: "Keep", names: ["keep received", "keep sent"], format: rate },
  { title: "Disk traffic", names: both("disk read", "disk written"), format: rate },
  { title: "Disk used", names: both("disk used"), format: amount },
];

/** Statistics of one file: all that there is, and what comes. */
class Reader {
  readonly stats: Stats;
  readonly file: LogFile;
  reading = true;
  private readonly ranges: Ranges;
  private reached = 0;
  private rest = "";
  private readonly decoder = new TextDecoder();

  constructor(file: LogFile, ranges: Ranges) {
    this.file = file;
    this.ranges = ranges;
    this.stats = new Stats(file.name === "hoststat.txt" ? HOST : "");
  }

  /** All that there is; what came meanwhile is read, too. */
  async read(tell: (share: number) => void, signal: AbortSignal): Promise<void> {
    this.reading = true;
    while (this.reached < this.file.size && !signal.aborted) {
      const { size: to } = this.file;
      const before = this.reached;
      await this.ranges.read(this.file, before, to, (data, _, next) => {
        this.take(data, next);
        tell(next / to);
      }, signal);
      if (this.reached === before) break;
    }
    this.reading = false;
  }

  /** What comes live; false if something before it is missing. */
  heard(log: LogMessage): boolean {
    if (log.offset === this.reached) this.take(log.text ?? log.bytes ?? "", log.next);
    return log.next <= this.reached;
  }

  private take(data: string | Uint8Array, next: number): void {
    const text = typeof data === "string" ? data : this.decoder.decode(data, { stream: true });
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.stats.add(line);
    this.reached = next;
  }
}

export class Plots {
  private readonly place: HTMLElement;
  private readonly readers: readonly Reader[];
  private readonly limit: number;
  private readonly none: string;
  private readonly control = new AbortController();
  private readonly drawn = new Map<Chart, { plot: uPlot; series: number }>();
  private readonly charts = make("div", { class: "charts", "aria-hidden": "true" });
  private readonly figures = make("tbody");
  private readonly progress = make("p", { role: "status" }, "reading …");
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly width = new ResizeObserver(() => this.resize());

  /** `limit`: bytes of memory that the container may use, 0 if nobody knows. `over`: no more comes. */
  constructor(place: HTMLElement, files: readonly LogFile[], ranges: Ranges, limit: number, over: boolean) {
    this.place = place;
    this.limit = limit;
    this.none = over ? NONE : NOT_YET;
    this.readers = files.map((file) => new Reader(file, ranges));
    const head = ["of what", "last", "mean", "most"].map((text) => make("th", { scope: "col" }, text));
    place.replaceChildren(
      this.progress,
      this.charts,
      make(
        "details",
        {},
        make("summary", {}, "Figures"),
        make("table", {}, make("thead", {}, make("tr", {}, ...head)), this.figures),
      ),
    );
    place.hidden = false;
    this.width.observe(place);
    if (!files.length) this.progress.textContent = this.none;
    for (const reader of this.readers) void this.read(reader);
  }

  /** Whether these files are what is drawn. */
  areOf(files: readonly LogFile[]): boolean {
    return files.length === this.readers.length && this.readers.every(({ file }, at) => file === files[at]);
  }

  private async read(reader: Reader): Promise<void> {
    try {
      await reader.read((share) => {
        const told = `reading ${reader.file.name}: ${Math.floor(100 * share)} %`;
        if (this.progress.textContent !== told) this.progress.textContent = told;
        this.later();
      }, this.control.signal);
      this.progress.textContent = this.readers.some(({ stats }) => stats.series.size) ? "" : this.none;
    } catch (error) {
      this.progress.textContent = `The statistics cannot be read: ${error instanceof Error ? error.message : error}`;
    }
    this.later();
  }

  /** What comes live. */
  heard(log: LogMessage): void {
    const reader = this.readers.find(({ file }) => file.name === log.file && file.container === log.container);
    if (!reader || reader.reading) return;
    if (reader.heard(log)) this.later();
    else void this.read(reader);
  }

  private series(name: string): Series | undefined {
    if (name !== LIMIT) {
      for (const { stats } of this.readers) if (stats.series.has(name)) return stats.series.get(name);
      return undefined;
    }
    const began = this.series("memory")?.times[0];
    if (!this.limit || began === undefined) return undefined;
    const found = new Series();
    found.add(began, this.limit);
    return found;
  }

  private later(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      void this.draw();
    }, DRAW_MS);
  }

  private async draw(): Promise<void> {
    const rows: HTMLElement[] = [];
    for (const chart of CHARTS) {
      if (this.control.signal.aborted) return;
      const found = chart.names.flatMap((name) => {
        const series = this.series(name);
        return series ? [{ name, series }] : [];
      });
      rows.push(...found.map(({ name, series }) => row(name, series, chart.format)));
      const [first] = found;
      if (!first || first.series.times.length < 2) continue;
      this.drawChart(chart, found.map(({ name }) => name), aligned(found.map(({ series }) => series)));
      // Each in a task of its own: whoever reads the log meanwhile has their turn.
      await new Promise((resolve) => setTimeout(resolve));
    }
    renew(this.figures, rows);
  }

  private drawChart(chart: Chart, names: readonly string[], data: uPlot.AlignedData): void {
    const drawn = this.drawn.get(chart);
    if (drawn?.series === names.length) {
      drawn.plot.setData(data);
      return;
    }
    const plot = this.chart(chart, names, data);
    if (drawn) drawn.plot.root.replaceWith(plot.root);
    drawn?.plot.destroy();
    this.drawn.set(chart, { plot, series: names.length });
  }

  private chart({ title, format }: Chart, names: readonly string[], data: uPlot.AlignedData): uPlot {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const [text, grid] = dark ? ["#9198a1", "#2a313a"] : ["#59636e", "#e4e8ec"];
    const colours = dark ? ["#6cb6ff", "#e3b341", "#ff7b72", "#56d364"] : ["#0b5cad", "#9a6700", "#b42318", "#116329"];
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    return new uPlot(
      {
        title,
        width: this.columnWidth(),
        height: HEIGHT,
        cursor: { sync: { key: "plots" } },
        legend: { live: false, show: names.length > 1 },
        scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
        series: [
          {},
          ...names.map((label, index) => ({
            label, stroke: colours[index], width: 1.5, points: { show: false }, dash: label === LIMIT ? [4, 4] : [],
          })),
        ],
        axes: [{ ...axis, values: clock }, { ...axis, size: 70, values: (_, values) => values.map((value) => format(value)) }],
      },
      data,
      this.charts,
    );
  }

  private columnWidth(): number {
    const wide = this.place.clientWidth - 32;
    const columns = Math.max(1, Math.floor(wide / 340));
    return Math.floor((wide - 16 * (columns - 1)) / columns);
  }

  private resize(): void {
    for (const { plot } of this.drawn.values()) plot.setSize({ width: this.columnWidth(), height: HEIGHT });
  }

  close(): void {
    this.control.abort();
    clearTimeout(this.timer);
    this.width.disconnect();
    for (const { plot } of this.drawn.values()) plot.destroy();
    this.place.replaceChildren();
    this.place.hidden = true;
  }
}

/** Times of day, and the day where one begins. */
function clock(_: uPlot, times: number[]): string[] {
  let day = "";
  return times.map((time) => {
    const date = new Date(time * 1000);
    const today = date.toLocaleDateString([], { day: "numeric", month: "short" });
    const text = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const shown = today === day ? text : `${text}\n${today}`;
    day = today;
    return shown;
  });
}

/** Values of all at the times of the first, the greatest since the time before; none where there was none yet. */
function aligned([first, ...others]: Series[]): uPlot.AlignedData {
  const { times, values } = first as Series;
  return [times, values, ...others.map((series) => valuesAt(times, series))] as uPlot.AlignedData;
}

function valuesAt(times: readonly number[], series: Series): (number | null)[] {
  let at = -1;
  return times.map((time) => {
    let most: number | null = null;
    for (; (series.times[at + 1] ?? Infinity) <= time; at += 1) most = Math.max(most ?? 0, series.values[at + 1] as number);
    return most ?? series.values[at] ?? null;
  });
}

function row(name: string, series: Series, format: Format): HTMLElement {
  const cells = [series.last, series.mean, series.most].map((value) => make("td", {}, format(value)));
  return make("tr", {}, make("th", { scope: "row" }, name), ...cells);
}
