// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** What a container used, over time: from the beginning of its statistics, and live. */

import type { LogMessage } from "arvados-events";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { size } from "../log/entries";
import type { LogFile } from "../log/file";
import { bytesOf, type Ranges } from "../log/ranges";
import { Stats, type Series } from "../log/stats";
import { make } from "./dom";

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
const CHARTS: readonly Chart[] = [
  { title: "CPU, cores", names: ["cpu"], format: (value) => value.toFixed(2) },
  { title: "Memory", names: ["memory"], format: amount },
  { title: "Network", names: ["network received", "network sent"], format: rate },
  { title: "Keep", names: ["keep received", "keep sent"], format: rate },
  { title: "Disk traffic", names: ["disk read", "disk written"], format: rate },
  { title: "Disk used", names: ["disk used"], format: amount },
];

export class Plots {
  private readonly place: HTMLElement;
  private readonly file: LogFile;
  private readonly ranges: Ranges;
  private readonly stats = new Stats();
  private readonly control = new AbortController();
  private readonly drawn = new Map<Chart, uPlot>();
  private readonly charts = make("div", { class: "charts" });
  private readonly figures = make("tbody");
  private readonly progress = make("p", { role: "status" }, "reading …");
  private reached = 0;
  private reading = true;
  private rest = "";
  private readonly decoder = new TextDecoder();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly width = new ResizeObserver(() => this.resize());

  constructor(place: HTMLElement, file: LogFile, ranges: Ranges) {
    this.place = place;
    this.file = file;
    this.ranges = ranges;
    const head = ["", "now", "mean", "most"].map((text) => make("th", { scope: "col" }, text));
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
    void this.read();
  }

  /** All that there is; what came meanwhile is read, too. */
  private async read(): Promise<void> {
    this.reading = true;
    try {
      while (this.reached < this.file.size && !this.control.signal.aborted) {
        const { size: to } = this.file;
        const before = this.reached;
        await this.ranges.read(this.file, before, to, (data, _, next) => {
          this.take(data, next);
          this.progress.textContent = `reading: ${Math.floor((100 * next) / to)} %`;
        }, this.control.signal);
        if (this.reached === before) break;
      }
      this.progress.textContent = this.stats.series.size ? "" : "There are no statistics yet.";
    } catch (error) {
      this.progress.textContent = `The statistics cannot be read: ${error instanceof Error ? error.message : error}`;
    }
    this.reading = false;
    this.later();
  }

  /** What comes live. */
  heard(log: LogMessage): void {
    if (log.file !== this.file.name || log.container !== this.file.container || this.reading) return;
    if (log.offset === this.reached) this.take(log.text ?? log.bytes ?? "", log.next);
    else if (log.next > this.reached) void this.read();
  }

  private take(data: string | Uint8Array, next: number): void {
    const lines = (this.rest + this.decoder.decode(bytesOf(data), { stream: true })).split("\n");
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.stats.add(line);
    this.reached = next;
    this.later();
  }

  private later(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.draw();
    }, DRAW_MS);
  }

  private draw(): void {
    if (this.stats.series.size && !this.reading) this.progress.textContent = "";
    for (const chart of CHARTS) {
      const found = chart.names.map((name) => this.stats.series.get(name)).filter((one) => one !== undefined);
      const [first] = found;
      if (!first || first.times.length < 2) continue;
      const data = [first.times, ...found.map((series) => aligned(series, first.times))] as uPlot.AlignedData;
      const plot = this.drawn.get(chart);
      if (plot) plot.setData(data);
      else this.drawn.set(chart, this.chart(chart, data));
    }
    const rows = CHARTS.flatMap(({ names, format }) => names.flatMap((name) => {
      const series = this.stats.series.get(name);
      return series ? [row(name, series, format)] : [];
    }));
    this.figures.replaceChildren(...rows);
  }

  private chart({ title, names, format }: Chart, data: uPlot.AlignedData): uPlot {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const [text, grid] = dark ? ["#9198a1", "#2a313a"] : ["#59636e", "#e4e8ec"];
    const colours = dark ? ["#6cb6ff", "#e3b341"] : ["#0b5cad", "#9a6700"];
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
          ...names.slice(0, data.length - 1).map((label, index) => ({ label, stroke: colours[index], width: 1.5, points: { show: false } })),
        ],
        axes: [axis, { ...axis, size: 70, values: (_, values) => values.map((value) => format(value)) }],
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
    for (const plot of this.drawn.values()) plot.setSize({ width: this.columnWidth(), height: HEIGHT });
  }

  close(): void {
    this.control.abort();
    clearTimeout(this.timer);
    this.width.disconnect();
    for (const plot of this.drawn.values()) plot.destroy();
    this.place.replaceChildren();
    this.place.hidden = true;
  }
}

/** Values at the times of another series. */
function aligned(series: Series, times: readonly number[]): (number | null)[] {
  if (series.times.length === times.length) return series.values;
  let at = 0;
  return times.map((time) => {
    while (at + 1 < series.times.length && (series.times[at + 1] as number) <= time) at += 1;
    return series.values[at] ?? null;
  });
}

function row(name: string, series: Series, format: Format): HTMLElement {
  const cells = [series.last, series.mean, series.most].map((value) => make("td", {}, format(value)));
  return make("tr", {}, make("th", { scope: "row" }, name), ...cells);
}
