// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

// arvados-ws' protocol with nothing but a WebSocket, as play.py has it.

let last; // the row that was told last

function connect() {
  const socket = new WebSocket(process.env.EVENTS_URL);
  socket.onopen = () => {
    const filters = [["event_type", "in", ["create", "update", "delete"]]];
    socket.send(JSON.stringify({ method: "subscribe", filters, ...(last ? { last_log_id: last } : {}) }));
  };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.id === undefined) return; // the answer to a command
    last = event.id;
    process.stdout.write(`${event.event_type} ${event.object_uuid}\n`);
  };
  socket.onclose = () => setTimeout(connect, 500 * Math.random());
}

connect();
