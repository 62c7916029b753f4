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

test("a series of any length is bounded", () => {
  const stats = new Stats();
  for (let n = 0; n < 100_000; n += 1) {
    const stamp = new Date(Date.UTC(2026, 0, 1) + n * 10_000).toISOString();
    stats.add(`${stamp} mem 0 cache ${n} rss`);
  }
  const series = stats.series.get("memory");
  expect(series?.times.length).toBeLessThanOrEqual(20_000);
  expect(series?.last).toBe(99_999);
});
