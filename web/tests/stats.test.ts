// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

import { expect, test } from "vitest";
import { Stats } from "../src/log/stats";

test("figures are those that crunchstat wrote", () => {
  const stats = new Stats();
  for (const line of [
    "2018-10-03T18:21:07.824136521Z mem 0 cache 0 swap 0 pgmajfault 1187840 rss",
    "2018-10-03T18:21:07.824253726Z notice: reading stats from /sys/fs/cgroup",
    "2018-10-03T18:21:17.824503045Z mem 172032 cache 0 swap 0 pgmajfault 68247552 rss",
    "2018-10-03T18:21:17.824702097Z cpu 2.0 user 0.38 sys 20.00 cpus -- interval 10.0 seconds 2.0 user 0.5 sys",
    "2018-10-03T18:21:27.827141860Z net:eth0 55888 tx 859480 rx -- interval 10.0 seconds 3958 tx 14793 rx",
    "2018-10-03T18:21:27.827141861Z net:keep0 10 tx 20 rx -- interval 10.0 seconds 10 tx 20 rx",
    "2018-10-03T18:21:27.827177703Z statfs 397744787456 available 4866453504 used 402611240960 total",
    "no line of statistics",
  ]) stats.add(line);
  const values = Object.fromEntries([...stats.series].map(([name, series]) => [name, series.values]));
  expect(values).toEqual({
    memory: [1187840, 68247552],
    cpu: [0.25],
    "network received": [1479.3],
    "network sent": [395.8],
    "keep received": [2],
    "keep sent": [1],
    "disk used": [4866453504],
  });
});

const stampAt = (second: number) => new Date(Date.UTC(2026, 0, 1) + second * 1000).toISOString();

test("a series of any length is bounded, as fine at its beginning as at its end, and keeps its peaks", () => {
  const stats = new Stats();
  const peak = (n: number) => [777, 31_234, 88_888].includes(n);
  for (let n = 0; n < 100_000; n += 1) stats.add(`${stampAt(n)} mem 0 cache ${peak(n) ? 1_000_000 + n : n % 10} rss`);
  const series = stats.series.get("memory");
  const { times = [], values = [] } = series ?? {};
  expect(times.length).toBeLessThanOrEqual(10_000);
  expect(Math.max(...times.slice(1).map((time, at) => time - (times[at] as number)))).toBeLessThan(50);
  expect(values.filter((value) => value > 10)).toEqual([1_000_777, 1_031_234, 1_088_888]);
  expect([series?.last, series?.most]).toEqual([9, 1_088_888]);
  expect(series?.mean).toBeCloseTo((450_000 + 3_120_899 - 19) / 100_000, 2);
});

test("all disks count, also where each has a line of its own", () => {
  const stats = new Stats();
  for (let n = 0; n < 3; n += 1) {
    for (const disk of ["blkio:202:0", "blkio:202:16"]) {
      const read = disk.endsWith("16") ? 100 : 20;
      stats.add(`${stampAt(10 * n)} ${disk} 9 write 9 read -- interval 10.0000 seconds 0 write ${read} read`);
    }
  }
  expect(stats.series.get("disk read")?.last).toBe(12);
});
