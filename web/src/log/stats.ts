// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Figures out of crunchstat.txt and hoststat.txt: what a container used, over time. */

/** Points of a series; where more come, each stands for as many as the others. */
const MOST_POINTS = 10_000;
const LINE = /^(\d{4}-\d\d-\d\dT[\d:.]+Z) (?:notice: )?(\S+) (.+)$/;
const INTERVAL = " -- interval ";

export class Series {
  readonly times: number[] = [];
  readonly values: number[] = [];
  last = 0;
  most = 0;
  private count = 0;
  private sum = 0;
  private reached = -Infinity;
  /** So many of those that came are one point, which is the greatest of them. */
  private stride = 1;

  add(time: number, value: number): void {
    if (time < this.reached) return;
    const { times, values } = this;
    const at = Math.floor(this.count / this.stride);
    this.reached = time;
    this.last = value;
    this.most = Math.max(this.most, value);
    this.count += 1;
    this.sum += value;
    if (at < values.length && value <= (values[at] as number)) return;
    times[at] = time;
    values[at] = value;
    if (times.length > MOST_POINTS) this.halve();
  }

  /** Of each two points the greater one stays: no peak is lost, and the beginning is as fine as the end. */
  private halve(): void {
    const { times, values } = this;
    const kept = Math.ceil(times.length / 2);
    for (let at = 0; at < kept; at += 1) {
      const from = 2 * at + Number((values[2 * at + 1] ?? -Infinity) > (values[2 * at] as number));
      times[at] = times[from] as number;
      values[at] = values[from] as number;
    }
    times.length = values.length = kept;
    this.stride *= 2;
  }

  get mean(): number {
    return this.count ? this.sum / this.count : 0;
  }
}

/** The number before a name, in "3.5 user 0.2 sys". */
function figure(text: string, name: string): number {
  const words = text.split(" ");
  return Number(words[words.indexOf(name) - 1]);
}

export class Stats {
  /** By name, in the order in which they are told of. */
  readonly series = new Map<string, Series>();
  /** The newest rate of each device: a container has several disks, and each has a line of its own. */
  private readonly rates = new Map<string, Map<string, number>>();
  private readonly whose: string;

  /** `whose`: what the names begin with. */
  constructor(whose = "") {
    this.whose = whose;
  }

  /** A line of the file; others than statistics are left out. */
  add(line: string): void {
    const found = LINE.exec(line);
    if (!found) return;
    const [, stamp = "", category = "", rest = ""] = found;
    const [total = "", since = ""] = rest.split(INTERVAL);
    const time = Date.parse(stamp) / 1000;
    const rate = (what: string, ...names: string[]) => {
      if (!since) return;
      const change = names.reduce((sum, name) => sum + figure(since, name), 0);
      this.device(what, category, time, change / Number.parseFloat(since));
    };
    if (category === "mem") this.put("memory", time, figure(total, "rss"));
    else if (category === "statfs") this.put("disk used", time, figure(total, "used"));
    else if (category === "cpu") rate("cpu", "user", "sys");
    else if (category.startsWith("net:")) {
      const which = category.startsWith("net:keep") ? "keep" : "network";
      rate(`${which} received`, "rx");
      rate(`${which} sent`, "tx");
    } else if (category.startsWith("blkio")) {
      rate("disk read", "read");
      rate("disk written", "write");
    }
  }

  /** What all devices do together. */
  private device(what: string, device: string, time: number, rate: number): void {
    if (!Number.isFinite(rate)) return;
    let rates = this.rates.get(what);
    if (!rates) {
      rates = new Map();
      this.rates.set(what, rates);
    }
    rates.set(device, rate);
    this.put(what, time, [...rates.values()].reduce((sum, one) => sum + one, 0));
  }

  private put(what: string, time: number, value: number): void {
    const name = `${this.whose}${what}`;
    if (!Number.isFinite(value) || !Number.isFinite(time)) return;
    let series = this.series.get(name);
    if (!series) {
      series = new Series();
      this.series.set(name, series);
    }
    series.add(time, value);
  }
}
