// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

// The JavaScript module, as play.py has it.

import { ArvadosEvents } from "../../web/arvados-events/arvados-events.js";

const { EVENTS_URL, ARVADOS_API_TOKEN, FOLLOW } = process.env;
const follow = JSON.parse(FOLLOW);
const say = (text) => process.stdout.write(text);

const line = new ArvadosEvents({
  url: EVENTS_URL,
  token: ARVADOS_API_TOKEN,
  onstate: (state) => state === "stopped" && process.exit(),
});
const both = {
  ongap: () => say("gap\n"),
  onrevoked: () => {
    say("revoked\n");
    line.close();
  },
  onerror: () => {},
};
if (follow.log) {
  const handlers = {
    ...both,
    onlog: ({ text, bytes }) => say(text ?? bytes),
    onend: ({ request }) => request && line.close(),
  };
  line.log(follow.log, handlers, { tail: follow.tail });
} else {
  line.events(
    {
      ...both,
      onevent: (event) => say(`${event.event_type} ${event.object_uuid}\n`),
      ongone: ({ uuid }) => say(`gone ${uuid}\n`),
    },
    follow.events,
  );
}
