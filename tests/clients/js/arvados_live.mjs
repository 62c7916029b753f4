// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

// Follow an Arvados project, or a container's log file, with a native NATS connection.
//
//   node arvados_live.mjs events PROJECT_UUID       one JSON line for each change, each once
//   node arvados_live.mjs log CONTAINER_UUID FILE   the bytes of the file, each once
//
// Reads NATS_URL and ARVADOS_API_TOKEN; or ARVADOS_API_TOKEN_FILE, anew for each connection, and
// ARVADOS_USER_UUID, so that a token is renewed without a new start. What happens to the connection is said on standard error.
// In a browser the same code works with `wsconnect` of @nats-io/nats-core instead of `connect`.

import { readFileSync } from "node:fs";

import {
  AuthorizationError,
  connect,
  createInbox,
  PermissionViolationError,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
} from "@nats-io/transport-node";

const RECONCILE_SECONDS = Number(process.env.RECONCILE_SECONDS ?? 60);
const AGAIN_SECONDS = 2; // until history is asked again that was not answered
const WAITING = 10000; // live messages that may wait for a slow handler
const say = (text) => console.error(`* ${text}`);
const { ARVADOS_API_TOKEN, ARVADOS_API_TOKEN_FILE, ARVADOS_USER_UUID } = process.env;
/** The token that holds now: v2/<uuid>/<secret>. */
function tokenNow() {
  if (!ARVADOS_API_TOKEN_FILE) return ARVADOS_API_TOKEN;
  try {
    return readFileSync(ARVADOS_API_TOKEN_FILE, "utf8").trim();
  } catch (error) {
    say(`error: ${error.message}`);
    return ""; // is refused, and asked for again; the library closes for good where this throws
  }
}
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const some = (low, high) => low + Math.random() * (high - low);

/** Why a request has no answer. */
class NotAnswered extends Error {
  constructor(text, temporary) {
    super(text);
    this.temporary = temporary;
  }
}

/**
 * Two connections that come back for as long as the program runs: one listens, one asks. Who listens
 * may publish nothing, and who asks hears nothing but answers, so nobody can have the services'
 * answers heard as events.
 */
class Connection {
  denied = false; // the server does not let us subscribe: a permission is missing
  #messages = []; // live messages in order; null when history has to be read
  #subjects = new Set();
  #open = new Set();
  #wake = () => {};

  /** Connect. The library asks for the token again whenever it connects anew; answers come to an inbox
   * named by the user, whose name stays, or else by the token. */
  static async open(servers) {
    const options = {
      servers,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 1000,
      pingInterval: 5_000, // a line that fell silent is given up after 15 s
      reconnectJitter: 2000,
      reconnectJitterTLS: 2000,
      ignoreAuthErrorAbort: true, // a refusal may be an outage: the server's words are the same
    };
    const connection = new Connection();
    const named = ARVADOS_USER_UUID || tokenNow().split("/")[1];
    if (!named) {
      say("not a token of the form v2/<uuid>/<secret>");
      process.exit(1);
    }
    connection.inboxPrefix = `_INBOX_${named}`;
    const listens = tokenAuthenticator(tokenNow);
    connection.nats = await Connection.#connect({ ...options, authenticator: listens });
    connection.asking = await Connection.#connect({
      ...options,
      authenticator: usernamePasswordAuthenticator("api", tokenNow),
      inboxPrefix: connection.inboxPrefix,
    });
    say("connected");
    connection.#watch();
    connection.#watchAsking();
    return connection;
  }

  static async #connect(options) {
    for (;;) {
      try {
        return await connect(options);
      } catch (error) {
        say(error instanceof AuthorizationError ? "refused" : `error: ${error.message}`);
        await sleep(some(1, 4));
      }
    }
  }

  async close() {
    await this.nats.close();
    await this.asking.close();
  }

  async #watchAsking() {
    for await (const status of this.asking.status()) {
      if (status.type === "reconnect") this.#put(null); // a question may have been lost
      if (status.type === "error") say(`asking: ${status.error.message}`);
    }
  }

  async #watch() {
    for await (const status of this.nats.status()) {
      if (status.type === "disconnect") {
        this.denied = false;
        say("disconnected");
      }
      if (status.type === "slowConsumer") this.#put(null);
      if (status.type === "error" && status.error instanceof AuthorizationError) say("refused");
      if (status.type === "reconnect") {
        for (const subject of this.#subjects) this.#subscribe(subject);
        say("connected");
        this.#put(null);
      }
    }
  }

  /** Hand what comes live to `next`. */
  async listen(subject) {
    this.#subjects.add(subject);
    this.#subscribe(subject);
    await this.nats.flush(); // from here on nothing is missed
  }

  #subscribe(subject) {
    if (this.#open.has(subject)) return; // the library sends it again itself
    this.#open.add(subject);
    const callback = (error, message) => {
      if (!error) return this.#put(message);
      this.#open.delete(subject); // the library forgets what was refused
      this.denied ||= error instanceof PermissionViolationError;
      if (this.denied) say("denied");
    };
    this.nats.subscribe(subject, { callback });
  }

  /** Whether a subscription was refused, as the server says after all that was sent before. */
  async isDenied() {
    await this.nats.flush();
    return this.denied;
  }

  #put(message) {
    if (this.#messages.length < WAITING) this.#messages.push(message);
    else this.#messages = [null]; // history tells what is not taken in time
    this.#wake();
  }

  /** The next live message; null when it is time to read history. */
  async next(seconds) {
    if (!this.#messages.length) {
      await new Promise((done) => {
        const timer = setTimeout(done, seconds * 1000);
        this.#wake = () => {
          clearTimeout(timer);
          done();
        };
      });
    }
    return this.#messages.shift() ?? null;
  }

  /** The messages of one answer. */
  async *ask(subject, request) {
    const inbox = createInbox(this.inboxPrefix);
    const answers = this.asking.subscribe(inbox);
    let timer; // the library's own waits for the first message alone
    const patient = () => (timer = setTimeout(() => answers.unsubscribe(), 10000));
    try {
      this.asking.publish(subject, JSON.stringify(request), { reply: inbox });
      patient();
      for await (const message of answers) {
        clearTimeout(timer);
        if (message.headers?.code === 503) throw new NotAnswered("nobody answers", true);
        if (message.headers?.get("Arvados-Error")) {
          const found = message.json();
          throw new NotAnswered(found.error, found.temporary);
        }
        yield message;
        if (message.headers?.has("Arvados-End")) return;
        patient();
      }
      throw new NotAnswered("the answer does not come", true);
    } catch (error) {
      throw error instanceof NotAnswered ? error : new NotAnswered(error.message, true);
    } finally {
      clearTimeout(timer);
      answers.unsubscribe();
    }
  }
}

/** What happens in a project, each event once, over every interruption; in order, but for what was
 * lost on its way: history tells that later. */
class Events {
  #place = { begin: "now" }; // or "oldest", for all that is kept; later a cursor
  #told = 0; // history has told everything up to this sequence
  #ahead = new Set(); // sequences above it that were told, most of them live

  constructor(project) {
    this.project = project;
  }

  /** The event in a message; null if it was told before, or is none that we know. */
  #new(message) {
    const sequence = Number(message.headers?.get("Nats-Sequence"));
    try {
      if (!(sequence > 0)) throw new Error("no sequence");
      const event = message.json();
      // A container in two requests comes twice, and so may all after a restart.
      if (sequence <= this.#told || this.#ahead.has(sequence)) return null;
      this.#ahead.add(sequence);
      return event;
    } catch (error) {
      say(`left out: ${message.subject}: ${error.message}`);
      return null;
    }
  }

  /** The events that did not come live, up to now. */
  async *#history(connection) {
    for (let more = true; more; ) {
      const request = { owners: [this.project], limit: 1000, ...this.#place };
      for await (const message of connection.ask("arvados.api.events", request)) {
        const header = (name) => message.headers?.get(name);
        if (header("Arvados-Gap")) {
          say(`gap: ${header("Arvados-Gap")}`);
          this.#told = 0;
          this.#ahead.clear();
        } else if (header("Arvados-End")) {
          this.#place = { cursor: header("Arvados-End") };
          this.#told = Number(header("Nats-Sequence"));
          for (const one of this.#ahead) if (one <= this.#told) this.#ahead.delete(one);
          more = header("Arvados-More") === "true";
        } else {
          const event = this.#new(message);
          if (!event) continue;
          this.#place = { cursor: header("Arvados-Cursor") };
          yield event;
        }
      }
    }
  }

  /** All events from now on. */
  async *follow(connection) {
    await connection.listen(`arvados.live.${this.project}.${this.project}.*.event.>`);
    const now = () => performance.now() / 1000;
    for (let due = now(); ; ) {
      // Live messages can be lost, so history is asked now and then, however many come.
      if (now() >= due) {
        due = now() + some(0.8, 1.2) * RECONCILE_SECONDS;
        try {
          // What we may not see now is told when we may again.
          if (!(await connection.isDenied())) {
            yield* this.#history(connection);
            say("caught up");
          }
        } catch (error) {
          say(`history: ${error.message}`);
          due = now() + some(0.5, 1) * AGAIN_SECONDS;
        }
      }
      const message = await connection.next(due - now());
      if (message === null) due = now();
      const event = message && this.#new(message);
      if (event) yield event;
    }
  }
}

/** The bytes of one log file of a container, each once and in order. */
class Log {
  #offset = 0;
  #epoch; // how often the file began anew, once an answer or a live message has said it
  #gap = false; // what comes next in an answer may begin behind our place
  #ended = false;

  constructor(uuid, file) {
    this.uuid = uuid;
    this.file = file;
  }

  /** The bytes of a message that are new; null if others have to come before them. */
  #new(message, asked = false) {
    const header = (name) => message.headers?.get(name);
    const place = [header("Arvados-End") || header("Arvados-Offset"), header("Arvados-Epoch")];
    const [offset, epoch] = place.map(Number);
    if (!place.every(Boolean) || Number.isNaN(offset + epoch)) {
      say(`left out: ${message.subject} has no place`);
      return new Uint8Array();
    }
    const ours = this.#epoch ?? 0;
    const behind = epoch > ours || (epoch === ours && offset > this.#offset);
    if (behind && !(asked && (this.#gap || epoch > ours))) return null;
    if (behind || this.#epoch === undefined) [this.#offset, this.#epoch] = [offset, epoch];
    const data = epoch < this.#epoch ? new Uint8Array() : message.data.slice(this.#offset - offset);
    this.#offset += data.length;
    this.#gap = false;
    return data;
  }

  /** The bytes that the stream has from our place on. */
  async *#history(connection) {
    for (let more = true; more; ) {
      const { uuid, file } = this;
      const request = { uuid, file, offset: this.#offset, epoch: this.#epoch };
      this.#gap = false;
      for await (const message of connection.ask("arvados.api.logs", request)) {
        const header = (name) => message.headers?.get(name);
        if (header("Arvados-Gap")) {
          // GET Arvados-Log-Path of Arvados' API with `Range`
          say(`gap: bytes ${header("Arvados-Gap")} of ${header("Arvados-Log-Path")}`);
          this.#gap = true;
          continue;
        }
        const data = this.#new(message, true);
        if (!data) throw new NotAnswered("a part of the answer is missing", true);
        yield data;
        more = header("Arvados-More") === "true";
        this.#ended = header("Arvados-Ended") === "true";
      }
    }
  }

  /** New bytes of a live message; null if history has to tell what is before them. */
  #live(message) {
    const [named, container] = [message.headers?.get("Arvados-Container"), message.subject.split(".").at(-2)];
    if (!message.headers?.has("Nats-Sequence") || (named && named !== container)) {
      say(`left out: ${message.subject}`);
      return new Uint8Array();
    }
    return message.headers.has("Arvados-End") ? null : this.#new(message); // history says when we have all
  }

  /** Hear the file as it grows; the answer says where. `end` tells when it is over. */
  async #listen(connection) {
    const { uuid, file } = this;
    for await (const message of connection.ask("arvados.api.logs", { uuid, file })) {
      const subject = message.headers?.get("Arvados-Live");
      if (!subject) continue;
      await connection.listen(subject);
      await connection.listen(`${subject.slice(0, subject.lastIndexOf("."))}.end`);
    }
  }

  /** All bytes, until the container has ended. */
  async *follow(connection) {
    let listens = false;
    for (let due = true; ; ) {
      try {
        if (!listens) await this.#listen(connection);
        listens = true;
        if (due) yield* this.#history(connection);
      } catch (error) {
        if (!error.temporary) throw error;
        say(`history: ${error.message}`);
      }
      if (this.#ended) return;
      const message = await connection.next(RECONCILE_SECONDS / 4);
      const data = message && this.#live(message);
      due = data === null;
      if (data?.length) yield data;
    }
  }
}

const [what, ...rest] = process.argv.slice(2);
const followed = what === "events" ? new Events(...rest) : new Log(...rest);
const connection = await Connection.open(process.env.NATS_URL);
for await (const found of followed.follow(connection)) {
  process.stdout.write(found instanceof Uint8Array ? found : `${JSON.stringify(found)}\n`);
}
await connection.close();
