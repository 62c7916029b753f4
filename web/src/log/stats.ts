// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Figures out of crunchstat.txt and hoststat.txt: what a container used, over time. */

/** Points of a series; beyond it every second one is dropped. */
const MOST_POINTS = 20_000;
const LINE = /^(\d{4}-\d\d-\d\dT[\d:.]+Z) (?:notice: )?(\S+) (.+)$/;
const INTERVAL = /^(.*?)(?: -- interval ([\d.]+) seconds (.*))?$/;

export class Series {
  readonly times: number[] = [];
  readonly values: number[] = [];

  add(time: number, value: number): void {
    const { times, values } = this;
    if (times.length && time <= (times.at(-1) as number)) return;
    times.push(time);
    values.push(value);
    if (times.length <= MOST_POINTS) return;
    const kept = Math.ceil(times.length / 2);
    for (let at = 1; at < kept; at += 1) {
      times[at] = times[2 * at] as number;
      values[at] = values[2 * at] as number;
    }
    times.length = values.length = kept;
  }

  get last(): number {
    return this.values.at(-1) ?? 0;
  }

  get most(): number {
    return this.values.reduce((most, value) => Math.max(most, value), 0);
  }

  get mean(): number {
    return this.values.length ? this.values.reduce((sum, value) => sum + value, 0) / this.values.length : 0;
  }
}

/** "3.5 user 0.2 sys" by name. */
function figures(text: string): Map<string, number> {
  const words = text.trim().split(/\s+/);
  const found = new Map<string, number>();
  for (let at = 0; at + 1 < words.length; at += 2) found.set(words[at + 1] as string, Number(words[at]));
  return found;
}

export class Stats {
  /** By name, in the order in which they are told of. */
  readonly series = new Map<string, Series>();
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
    const [, total = "", seconds = "", change = ""] = INTERVAL.exec(rest) ?? [];
    const time = Date.parse(stamp) / 1000;
    const since = figures(change);
    const rate = (name: string) => (since.get(name) ?? 0) / Number(seconds);
    if (category === "mem") this.put("memory", time, figures(total).get("rss"));
    else if (category === "cpu" && seconds) this.put("cpu", time, rate("user") + rate("sys"));
    else if (category === "statfs") this.put("disk used", time, figures(total).get("used"));
    else if (category.startsWith("net:") && seconds) {
      const which = category.startsWith("net:keep") ? "keep" : "network";
      this.put(`${which} received`, time, rate("rx"));
      this.put(`${which} sent`, time, rate("tx"));
    } else if (category.startsWith("blkio") && seconds) {
      this.put("disk read", time, rate("read"));
      this.put("disk written", time, rate("write"));
    }
  }

  private put(what: string, time: number, value: number | undefined): void {
    const name = `${this.whose}${what}`;
    if (value === undefined || !Number.isFinite(value) || !Number.isFinite(time)) return;
    let series = this.series.get(name);
    if (!series) {
      series = new Series();
      this.series.set(name, series);
    }
    series.add(time, value);
  }
}
