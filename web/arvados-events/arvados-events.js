// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * Container logs, object states and events of an Arvados cluster, live, in a browser or in Node.
 *
 * Speaks protocol v1 (docs/protocol-v1.md). One connection carries any number of subscriptions. A
 * lost connection costs nothing: the module connects again with full jitter, asks for the token anew,
 * and resumes each subscription where it was: logs by byte offset, events by cursor, objects by etag.
 * It has no dependencies. Types are in arvados-events.d.ts.
 */

const SUBPROTOCOL = "arvados.events.v1.json";
const TOKEN_INVALID = 4501;
/** The server could not look at the token in time, because Arvados is away: not the client's fault. */
const AUTH_TIMEOUT = 4502;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 30_000;
const SILENCE_FACTOR = 2.5;
/** The place of a file that goes on at the first byte of an epoch that is not known yet. */
const ANEW = { epoch: -1, offset: 0 };

/** A random time, so that clients that lost one server do not come back in the same second. */
function backoff(attempt) {
  return Math.random() * Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/**
 * The part of a log frame from byte `next` on; null if the frame does not hold that byte. Frames name no
 * subscription: one that does not join is for another subscription to the same file, which is elsewhere.
 */
function cutFront(log, next) {
  if (next === log.offset) return log;
  if (next < log.offset || next >= log.next) return null;
  const bytes = "text" in log ? new TextEncoder().encode(log.text) : bytesOf(log.base64);
  const rest = bytes.subarray(next - log.offset);
  return { ...log, offset: next, text: undefined, base64: undefined, bytes: rest };
}

/** file -> place, of those that the server can be asked for. */
function placesIn(places) {
  return Object.fromEntries([...places].filter(([, { epoch }]) => epoch >= 0));
}

/** One subscription. Subclasses say how to begin, how to resume, and which frames are theirs. */
class Subscription {
  constructor(connection, id, handlers) {
    this.connection = connection;
    this.id = id;
    this.handlers = handlers;
    this.live = false;
    /** The server has said so on the present connection; what comes before is of others. */
    this.subscribed = false;
  }

  /** Ends the subscription; no handler is called afterwards. */
  close() {
    this.handlers = {};
    this.connection.drop(this);
  }

  tell(name, body) {
    const handler = this.handlers[`on${name}`];
    if (handler) handler(body, this);
    else if (name === "error" || name === "revoked") console.warn(`arvados-events: ${name}`, body);
  }

  /** A frame that names this subscription. */
  named(type, body) {
    if (type === "subscribed") this.subscribed = true;
    if (type === "caught_up") this.live = true;
    this.tell(type === "caught_up" ? "caughtup" : type, body);
    const refused = type === "error" && !this.subscribed; // later ones end nothing: it goes on by itself
    if (type === "revoked" || (refused && !body.temporary)) this.connection.drop(this);
    else if (refused) this.connection.again(this);
  }
}

class LogSubscription extends Subscription {
  constructor(connection, id, handlers, uuid, options) {
    super(connection, id, handlers);
    this.uuid = uuid;
    this.options = options;
    this.container = uuid.includes("-dz642-") ? uuid : (options.container ?? null);
    this.containerEnded = false;
    /** Only the server knows where the last lines begin, and has not said it yet. */
    this.waits = false;
    /** file -> {epoch, offset}: where the next byte is to come from. */
    this.places = new Map();
    /** container -> such places, of earlier attempts whose end has not come. */
    this.former = new Map();
    for (const [file, { offset, epoch }] of Object.entries(options.from ?? {})) {
      if (epoch !== undefined) this.places.set(file, { offset, epoch });
    }
  }

  request() {
    // What is not known goes along: the server refuses it by its name.
    const { tail, from, container, ...log } = { ...this.options, uuid: this.uuid };
    // Files that were not seen yet would otherwise begin at their first byte.
    if (tail !== undefined && !this.caughtUp) log.tail = tail;
    const known = { ...from, ...placesIn(this.places) };
    if (Object.keys(known).length) log.from = known;
    if (this.container && this.container !== this.uuid) log.container = this.container;
    if (this.former.size) {
      log.former = {};
      for (const [container, places] of this.former) log.former[container] = placesIn(places);
    }
    return { log };
  }

  placesOf(container) {
    return container === this.container ? this.places : this.former.get(container);
  }

  named(type, body) {
    if (type === "end") return this.ended(body);
    if (type === "places") return this.begins(body);
    if (type === "subscribed") this.waits = this.options.tail != null && !this.caughtUp; // null: all of it
    if (type === "caught_up") [this.caughtUp, this.waits] = [true, false];
    if (type === "attempt") this.begin(body.container);
    if (type === "gap" && body.file === undefined) this.former.delete(body.container);
    else if (type === "gap") {
      const place = body.to == null ? ANEW : { epoch: body.epoch, offset: body.to };
      this.placesOf(body.container)?.set(body.file, place);
    }
    super.named(type, body);
  }

  begin(container) {
    if (container === this.container) return;
    if (this.container && !this.containerEnded) this.former.set(this.container, this.places);
    // Where to begin was said of the first one only.
    if (this.container) this.options = { ...this.options, from: undefined };
    this.container = container;
    this.containerEnded = false;
    this.places = new Map();
  }

  begins({ container, files }) {
    this.waits = false;
    for (const [file, place] of Object.entries(files)) this.placesOf(container)?.set(file, place);
  }

  shared(type, body) {
    if (type === "end") this.ended(body);
    if (type !== "log") return;
    const places = this.placesOf(body.container);
    if (!places || (this.options.files && !this.options.files.includes(body.file))) return;
    // What comes before our places are told is for another subscription.
    if (this.waits && places === this.places && !places.has(body.file)) return;
    const { epoch, offset } = places.get(body.file) ?? this.beginning(body);
    if (body.epoch < epoch) return;
    // A file that began anew is shown from its first byte.
    const fresh = cutFront(body, body.epoch > epoch ? 0 : offset);
    if (!fresh) return;
    places.set(body.file, { epoch: body.epoch, offset: body.next });
    this.tell("log", fresh.base64 === undefined ? fresh : { ...fresh, bytes: bytesOf(fresh.base64) });
  }

  /** Where a file begins of which nothing has come. */
  beginning({ container, file, epoch }) {
    const wanted = container === this.container ? this.options.from?.[file]?.offset : undefined;
    return { epoch, offset: wanted ?? 0 };
  }

  ended(end) {
    if (end.container !== undefined && !this.placesOf(end.container)) return;
    if (end.container === undefined && end.request !== this.uuid) return;
    if (end.container !== undefined && end.file === undefined) {
      this.former.delete(end.container);
      if (end.container === this.container) this.containerEnded = true;
    }
    this.tell("end", end);
  }
}

class ObjectSubscription extends Subscription {
  constructor(connection, id, handlers, uuid, options) {
    super(connection, id, handlers);
    this.uuid = uuid;
    this.options = options;
    this.etag = options.etag;
  }

  request() {
    return { object: { ...this.options, uuid: this.uuid, ...(this.etag ? { etag: this.etag } : {}) } };
  }

  shared(type, body) {
    if (type !== "object" || body.uuid !== this.uuid || body.etag === this.etag) return;
    this.etag = body.etag;
    this.tell("object", body);
  }
}

class EventsSubscription extends Subscription {
  constructor(connection, id, handlers, options) {
    super(connection, id, handlers);
    this.options = { ...options };
  }

  request() {
    return { events: this.options };
  }

  named(type, body) {
    if (body.cursor) this.resumeAfter(body.cursor);
    super.named(type, body);
  }

  /** A server of an earlier release does not say to which subscription an event is told. */
  shared(type, body) {
    if (type === "event") this.named(type, body);
  }

  resumeAfter(cursor) {
    this.options.cursor = cursor;
    delete this.options.begin;
  }
}

export class ArvadosEvents {
  /**
   * @param {object} options `url` of the proxy's `/v1/stream`; `token`, a text or a function that
   *   gives one (or a promise of one) at each connect; `onstate(state, detail)` is told "connecting",
   *   "open", "waiting" and "stopped".
   */
  constructor({ url, token, onstate = () => {} }) {
    this.url = url;
    this.token = typeof token === "function" ? token : () => token;
    this.onstate = onstate;
    this.subscriptions = new Map();
    this.lastId = 0;
    this.attempt = 0;
    this.stopped = false;
    this.refusedToken = undefined;
    this.wake = () => this.lookAtLine();
    for (const [target, event] of this.alarms()) target.addEventListener(event, this.wake);
    this.connect();
  }

  /** Log files of a container or container request; see arvados-events.d.ts for the handlers. */
  log(uuid, handlers, options = {}) {
    return this.add((id) => new LogSubscription(this, id, handlers, uuid, options));
  }

  /** The state of one object, and every later state. */
  object(uuid, handlers, options = {}) {
    return this.add((id) => new ObjectSubscription(this, id, handlers, uuid, options));
  }

  /** Changes of objects, as the filters in `options` say. */
  events(handlers, options = {}) {
    return this.add((id) => new EventsSubscription(this, id, handlers, options));
  }

  /** Ends everything; the object can not be used again. */
  close() {
    this.stop("closed by the page");
    this.socket?.close(1000);
  }

  /** Present the token again on the open connection, for example after it was renewed. */
  async renew() {
    this.send({ auth: { token: await this.token() } });
  }

  alarms() {
    const found = [];
    if (typeof window !== "undefined") found.push([window, "online"], [window, "offline"]);
    if (typeof document !== "undefined") found.push([document, "visibilitychange"]);
    return found;
  }

  add(make) {
    const subscription = make(String((this.lastId += 1)));
    this.subscriptions.set(subscription.id, subscription);
    if (this.open) this.subscribe(subscription);
    return subscription;
  }

  drop(subscription) {
    if (this.subscriptions.delete(subscription.id) && this.open) {
      this.send({ unsubscribe: { id: subscription.id } });
    }
  }

  /** The server could not begin a subscription just now. */
  again(subscription) {
    const { socket } = this;
    const still = () => this.open && this.socket === socket && this.subscriptions.has(subscription.id);
    setTimeout(() => still() && this.subscribe(subscription), 500 + backoff(2));
  }

  subscribe(subscription) {
    this.send({ subscribe: { id: subscription.id, ...subscription.request() } });
  }

  send(message) {
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify(message));
  }

  async connect() {
    this.onstate("connecting");
    this.connecting = true;
    let token;
    try {
      token = await this.token();
    } catch (error) {
      this.retry(backoff((this.attempt += 1)), `no token: ${error}`);
      return;
    } finally {
      this.connecting = false;
    }
    if (this.stopped) return;
    if (token === this.refusedToken) {
      this.stop("the token is not valid");
      return;
    }
    const socket = new WebSocket(this.url, SUBPROTOCOL);
    this.socket = socket;
    this.pause = undefined;
    this.heard(10_000);
    this.reached = false;
    this.sendToken = () => socket.send(JSON.stringify({ auth: { token } }));
    socket.onopen = () => {
      this.reached = true;
      this.sendToken();
    };
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = ({ code, reason }) => {
      if (this.socket === socket) this.lost(code, reason, token);
    };
  }

  receive(text) {
    this.heard(this.silence);
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      this.abandon("the server sent what is no JSON");
    }
    // What is no object is of a later release.
    for (const [type, body] of Object.entries(message ?? {})) if (Object(body) === body) this.dispatch(type, body);
  }

  dispatch(type, body) {
    if (type === "hello") this.welcomed(body);
    else if (type === "error" && body.id === undefined) this.failed(body);
    else if (type === "ping") this.send({ pong: {} });
    else if (type === "goodbye") this.pause = body.reconnect_after_ms;
    // The id of an event is that of its row.
    else if (body.subscription !== undefined) this.subscriptions.get(body.subscription)?.named(type, body);
    else if (body.id !== undefined && type !== "event") this.subscriptions.get(body.id)?.named(type, body);
    else for (const one of [...this.subscriptions.values()]) if (one.subscribed) one.shared(type, body);
  }

  welcomed(hello) {
    this.silence = hello.ping_seconds * 1000 * SILENCE_FACTOR;
    this.heard(this.silence);
    if (this.open) return;
    this.open = true;
    this.attempt = 0;
    this.refusedToken = undefined;
    this.onstate("open", hello);
    for (const subscription of this.subscriptions.values()) this.subscribe(subscription);
  }

  /** An error that names no subscription is about the token: ask again if that may help. */
  failed(error) {
    const again = () => !this.open && this.socket?.readyState === 1 && this.sendToken();
    if (error.temporary && !this.open) setTimeout(again, backoff(2));
  }

  /** Something came; a line that stays silent longer than this is dead, whatever TCP says. */
  heard(silence) {
    clearTimeout(this.watchdog);
    this.deadline = Date.now() + silence;
    this.watchdog = setTimeout(() => this.lookAtLine(), silence + 50);
  }

  /** A timer, the network or the tab woke us: timers of hidden tabs are late, so look at the clock. */
  lookAtLine() {
    if (this.stopped || this.connecting) return;
    if (this.timer !== undefined) {
      if (globalThis.navigator?.onLine !== false) this.retry(backoff(0), "woken");
      return;
    }
    const offline = globalThis.navigator?.onLine === false;
    if (Date.now() >= this.deadline || offline) this.abandon("no answer from the server");
  }

  /** Give up on a socket without waiting for its closing handshake. */
  abandon(reason) {
    const socket = this.socket;
    this.socket = undefined;
    socket?.close();
    this.lost(1006, reason);
  }

  lost(code, reason, token) {
    clearTimeout(this.watchdog);
    this.open = false;
    this.socket = undefined;
    for (const subscription of this.subscriptions.values()) subscription.live = subscription.subscribed = false;
    if (this.stopped) return;
    if (code === TOKEN_INVALID) {
      this.refusedToken = token;
      this.retry(backoff(0), reason);
    } else if (code >= 4500 && code < 5000 && code !== AUTH_TIMEOUT) {
      this.stop(reason || `closed with code ${code}`);
    } else {
      const [least, most] = this.pause ?? [0, 0];
      const planned = least + Math.random() * (most - least);
      this.retry(planned || backoff(this.attempt++), reason);
    }
  }

  retry(delay, reason) {
    clearTimeout(this.timer);
    if (this.stopped) return;
    this.onstate("waiting", { delay, reason, reached: this.reached });
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.connect();
    }, delay);
  }

  stop(reason) {
    if (this.stopped) return;
    this.stopped = true;
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    for (const [target, event] of this.alarms()) target.removeEventListener(event, this.wake);
    this.onstate("stopped", { reason });
  }
}
