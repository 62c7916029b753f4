// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

// Topics of an Arvados cluster over WAMP, with autobahn: node arvados_wamp.js '[["arvados.event", {"match": "prefix"}]]'
// Comes back after a lost connection or a drain, with the cursor of the last event of each topic.
"use strict";
const autobahn = require("autobahn");

const topics = JSON.parse(process.argv[2]);
const cursors = topics.map(() => undefined);
const say = (...words) => console.error("*", ...words);

const connection = new autobahn.Connection({
  url: process.env.ARVADOS_WAMP_URL,
  realm: "arvados",
  authmethods: ["ticket"],
  authid: "me",
  onchallenge: () => process.env.ARVADOS_API_TOKEN,
  initial_retry_delay: 0.5,
  max_retries: -1,
});

connection.onopen = async (session, details) => {
  say("joined", details.authid);
  const who = await session.call("arvados.api.whoami");
  say("whoami", who.kwargs.user_uuid);
  for (const [number, [topic, options]] of topics.entries()) {
    const cursor = cursors[number];
    const wanted = cursor ? { ...options, x_arvados: { ...options.x_arvados, cursor } } : options;
    const hear = (args, message) => {
      console.log(JSON.stringify({ on: number, ...message }));
      if (message.event) cursors[number] = message.event.cursor;
    };
    try {
      const subscription = await session.subscribe(topic, hear, wanted);
      say("subscribed", number);
      subscription.on_unsubscribe.then((reason) => say("unsubscribed", number, reason));
    } catch (error) {
      say("refused", number, error.error);
    }
  }
};

connection.onclose = (reason, details) => {
  say("left", details.reason ?? reason);
  // A GOODBYE ends autobahn's own reconnecting: a drain is no reason to stay away.
  if (details.reason === "wamp.close.system_shutdown") setTimeout(() => connection.open(), 1000 * Math.random());
  else if (!details.will_retry) process.exitCode = 3;
  return false;
};

connection.open();
