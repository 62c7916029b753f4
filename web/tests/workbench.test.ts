// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

import { expect, test, vi } from "vitest";
import { Gone, Sign } from "../src/workbench/notice";
import { placeOf, tokenOf } from "../src/workbench/place";
import { again, narrows, question, Requests, shownAt } from "../src/workbench/requests";
import { after, pauseBefore } from "../src/workbench/socket";

const REQUEST = "zzzzz-xvhdp-000000000000001";
const CONTAINER = "zzzzz-dz642-000000000000001";
const PROJECT = "zzzzz-j7d0g-000000000000001";

test("the sockets are beside the script, or where its element says", () => {
  const beside = { socket: "wss://ws.zzzzz.example/websocket", base: "https://ws.zzzzz.example/" };
  expect(placeOf("https://ws.zzzzz.example/workbench.js")).toEqual(beside);
  expect(placeOf("https://workbench.example/x.js", "wss://ws.zzzzz.example/websocket")).toEqual(beside);
  expect(placeOf("https://w.example/live/workbench.js")?.socket).toBe("wss://w.example/live/websocket");
});

test.each(["ftp://a/websocket", "wss://a/other", "wss://a/websocket?x=1", "wss://u@a/websocket", "wss://"])(
  "%s is no place",
  (said) => expect(placeOf("https://workbench.example/workbench.js", said)).toBeNull(),
);

test("the cluster's socket is known by its whole address", () => {
  const place = placeOf("https://ws.example/workbench.js")!;
  const base = "wss://ws.example/websocket";
  const v2 = "v2/zzzzz-gj3su-000000000000001/secret";
  expect(tokenOf(place, [`${base}?api_token=${v2}`])).toBe(v2);
  expect(tokenOf(place, [new URL(`${base}?api_token=${v2}`)])).toBe(v2);
  for (const wanted of [
    [],
    [base],
    [`${base}?api_token=`],
    [`${base}?api_token=a&api_token=b`],
    [`${base}?token=a`],
    [`${base}/?api_token=a`],
    [`ws://ws.example/websocket?api_token=a`],
    [`wss://ws.example.evil/websocket?api_token=a`],
    [`wss://user@ws.example/websocket?api_token=a`],
    [`${base}?api_token=a#b`],
    [`${base}?api_token=a`, "protocol"],
    [{ toString: () => `${base}?api_token=a` }],
  ]) {
    expect(tokenOf(place, wanted), String(wanted)).toBeNull();
  }
});

test("a subscription goes on after the last row", () => {
  const asked = { method: "subscribe", narrowed: true };
  expect(JSON.parse(after('{"method":"subscribe"}', null))).toEqual(asked);
  expect(JSON.parse(after('{"method":"subscribe"}', 7))).toEqual({ ...asked, last_log_id: 7 });
});

test("pauses grow to half a minute, and no two clients have the same", () => {
  expect(pauseBefore(0, () => 0)).toBe(100);
  expect(pauseBefore(3, () => 0.5)).toBe(4000);
  for (const attempt of [10, 100, 10_000]) expect(pauseBefore(attempt, () => 1)).toBe(30_000);
});

test("only pages of a process, a project and a collection show something", () => {
  expect(shownAt(`/processes/${REQUEST}`)).toEqual({ page: "processes", uuid: REQUEST });
  expect(shownAt(`/projects/${PROJECT}/x`)?.page).toBe("projects");
  for (const path of ["/", "/processes/", `/processes/${REQUEST}0`, `/x/processes/${REQUEST}`, "/all_processes"]) {
    expect(shownAt(path), path).toBeNull();
  }
});

async function settled(): Promise<void> {
  for (let n = 0; n < 20; n += 1) await new Promise((go) => setTimeout(go, 0));
}

test("a process is asked about once, and told of its own container alone", async () => {
  const asked: unknown[] = [];
  const told: string[] = [];
  const ask = async (what: Record<string, unknown>) => {
    asked.push(what);
    return [{ uuid: REQUEST, owner_uuid: PROJECT, container_uuid: CONTAINER }];
  };
  const requests = new Requests(ask, (frame) => told.push(frame), () => {}, () => `/processes/${REQUEST}`);
  const row = (uuid: string) => requests.event({ object_kind: "arvados#container", object_uuid: uuid });
  row("zzzzz-dz642-other0000000000");
  row(CONTAINER);
  await settled();
  row(CONTAINER);
  row("zzzzz-dz642-other0000000000");
  expect(asked).toEqual([question({ page: "processes", uuid: REQUEST }, [])]);
  expect(told.map((frame) => JSON.parse(frame).object_uuid)).toEqual([REQUEST, REQUEST]);
  expect(JSON.parse(told[0]!)).toMatchObject({
    event_type: "update",
    object_kind: "arvados#containerRequest",
    object_owner_uuid: PROJECT,
    properties: { new_attributes: { container_uuid: CONTAINER } },
  });
});

test("where no page shows requests nothing is asked", async () => {
  const requests = new Requests(
    () => Promise.reject(new Error("asked")),
    () => expect.fail("told"),
    () => expect.fail("checked"),
    () => "/all_processes",
  );
  requests.event({ object_kind: "arvados#container", object_uuid: CONTAINER });
  requests.event({ object_kind: "arvados#collection", object_uuid: PROJECT });
  await settled();
});

test("a page looks again at what Workbench reads its rows for", () => {
  const told = (path: string) => JSON.parse(again(path) ?? "null");
  expect(told(`/collections/${PROJECT}`)).toMatchObject({ object_kind: "arvados#collection", object_uuid: PROJECT });
  expect(told(`/processes/${REQUEST}`)).toMatchObject({ object_kind: "arvados#containerRequest", object_uuid: REQUEST });
  expect(told(`/projects/${PROJECT}`)).toMatchObject({
    object_kind: "arvados#containerRequest",
    object_owner_uuid: PROJECT,
    properties: { new_attributes: {} },
  });
  expect(told("/all_processes")).toMatchObject({ object_kind: "arvados#containerRequest" });
  for (const path of ["/", "/trash", `/users/${PROJECT}`]) expect(told(path)).toBeNull();
});

const owned = (owner_uuid: string, is_trashed = false) => ({ owner_uuid, is_trashed });
test.each([
  ["a project moved", "group", "update", { old_attributes: owned("a"), new_attributes: owned("b") }, true],
  ["a project gone", "group", "update", { old_attributes: owned("a"), new_attributes: {} }, true],
  ["a project trashed", "group", "update", { old_attributes: owned("a"), new_attributes: owned("a", true) }, true],
  ["a project deleted", "group", "delete", null, true],
  ["a project renamed", "group", "update", { old_attributes: owned("a"), new_attributes: owned("a") }, false],
  ["a collection", "collection", "delete", {}, false],
])("%s", (_, kind, event_type, properties, expected) => {
  const frame = { object_kind: `arvados#${kind}`, object_uuid: REQUEST, event_type, properties };
  expect(narrows(frame, CONTAINER)).toBe(expected);
  expect(narrows(frame, REQUEST)).toBe(expected || kind === "collection");
});

test("many rows that may take something away make the page look seldom", async () => {
  const told: string[] = [];
  const checked: string[] = [];
  const requests = new Requests(
    () => Promise.reject(new Error("asked")),
    (frame) => told.push(frame),
    (shown) => checked.push(shown.uuid),
    () => `/collections/${PROJECT}`,
  );
  for (let n = 0; n < 100; n += 1) requests.event({ object_kind: "arvados#group", event_type: "delete" });
  await settled();
  requests.event({ object_kind: "arvados#group", event_type: "delete" });
  await settled();
  expect(told).toHaveLength(1);
  expect(checked).toEqual([PROJECT]);
});

test("the sign comes after a moment, however often another attempt fails meanwhile", () => {
  vi.useFakeTimers();
  try {
    const shown: unknown[] = [];
    const createElement = () => ({ style: {}, setAttribute: () => {}, remove: () => shown.pop() });
    const body = { append: (box: unknown) => shown.push(box) };
    const sign = new Sign({ createElement, body } as unknown as Document);
    for (let n = 0; n < 5; n += 1) {
      sign.live(false, false);
      vi.advanceTimersByTime(500);
    }
    expect(shown).toHaveLength(1);
    sign.live(true, false);
    expect(shown).toHaveLength(0);
    sign.live(false, false);
    vi.advanceTimersByTime(500);
    sign.live(true, false);
    vi.advanceTimersByTime(10_000);
    expect(shown).toHaveLength(0);
  } finally {
    vi.useRealTimers();
  }
});

test("what cannot be read any more is said as long as the page shows it", () => {
  vi.useFakeTimers();
  try {
    const shown: unknown[] = [];
    const createElement = () => ({ style: {}, setAttribute: () => {}, remove: () => shown.pop() });
    const document = { createElement, body: { append: (box: unknown) => shown.push(box) } } as unknown as Document;
    let path = `/collections/${PROJECT}`;
    const gone = new Gone(document, () => path);
    gone.told(REQUEST, false);
    expect(shown).toHaveLength(0);
    gone.told(PROJECT, false);
    gone.told(PROJECT, false);
    expect(shown).toHaveLength(1);
    gone.told(PROJECT, true);
    expect(shown).toHaveLength(0);
    gone.told(PROJECT, false);
    path = "/";
    vi.advanceTimersByTime(2_000);
    expect(shown).toHaveLength(0);
  } finally {
    vi.useRealTimers();
  }
});
