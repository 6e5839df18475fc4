// The gateway's event streams and WebSockets in browsers: docs/browsers.md

/** @typedef {Record<string, any>} Frame */
/** @typedef {{ticket?: () => Promise<string> | string, silenceS?: number}} Options */
// Reasons and statuses for which connecting again cannot succeed.
const FINAL = /^(forbidden|origin-not-allowed|ip-not-allowed|not-found|taken-over|invalid-request|4(?!01|08|25|29)..)$/;

/** A refusal, with its problem details. */
export class Refusal extends Error {
  /** @param {Frame} problem @param {Response} [answer] */
  constructor(problem, answer) {
    super(problem.detail ?? problem.reason ?? `HTTP ${answer?.status}`);
    this.problem = problem;
    this.status = answer?.status ?? 0;
    /** @type {number | undefined} */
    this.retryAfterS = problem.retry_after_s ?? (Number(answer?.headers.get("retry-after")) || undefined);
    this.isFinal = FINAL.test(problem.reason) || FINAL.test(`${this.status}`);
  }
}

const refusal = async (/** @type {Response} */ answer) => new Refusal(await answer.json().catch(() => ({})), answer);

/** Create tickets at `/v1/tickets` or its like. @param {string | URL} url @param {RequestInit} [init] */
export function tickets(url, init = {}) {
  return async () => {
    const headers = { "Content-Type": "application/json", ...init.headers };
    const answer = await fetch(url, { method: "POST", body: '{"resumable": true}', ...init, headers });
    if (!answer.ok) throw await refusal(answer);
    return /** @type {string} */ ((await answer.json()).ticket);
  };
}

/** A connection that is opened again until it is closed. Events: `state`, `error`, `gap`, `reconnect`. */
class Resuming extends EventTarget {
  /** @param {string | URL} url @param {Options} [options] */
  constructor(url, { ticket, silenceS = 45 } = {}) {
    super();
    this._url = new URL(url, globalThis.location?.href);
    this.state = "new";
    this._mint = ticket;
    /** @type {string | undefined} */ this._ticket = undefined;
    this._silenceMs = silenceS * 1000;
    this._waitS = 2;
    this._tries = 0;
    queueMicrotask(() => this._run());
  }

  close() {
    this._become("closed");
    clearTimeout(this._timer);
    clearTimeout(this._alarm);
    this._drop();
  }

  async _run() {
    while (this.state !== "closed") {
      this._become("connecting");
      this._wasOpen = false;
      const isNew = !this._ticket;
      let waitS;
      try {
        this._ticket ||= await this._mint?.();
        if (this.state !== "closed") await this._serve(this._ticket);
      } catch (error) {
        if (this.state === "closed") return;
        const { isFinal, status, retryAfterS } = /** @type {Partial<Refusal>} */ (error);
        waitS = retryAfterS;
        this._tell("error", error);
        if (isFinal || (isNew && status === 401)) this.close();
      }
      clearTimeout(this._alarm);
      if (this.state === "closed") return;
      waitS ??= this._waitS;
      if (!this._wasOpen) {
        this._ticket = undefined; // It may have expired.
        waitS = Math.max(waitS, Math.min(30, 2 ** this._tries++));
      }
      this._become("waiting");
      const ms = Math.min(waitS * 1000, 864e5) * (1 + Math.random() / 2);
      await new Promise((resume) => { this._timer = setTimeout(resume, ms); });
    }
  }

  /** @param {string} [ticket] @returns {Promise<void>} */
  async _serve(ticket) {}

  _drop() {}

  _opened() {
    this._wasOpen = true;
    this._tries = 0;
    this._become("open");
  }

  /** Give the other side `silenceS` until its next sign of life. */
  _alive() {
    clearTimeout(this._alarm);
    if (this._silenceMs) this._alarm = setTimeout(() => this._drop(), this._silenceMs);
  }

  /** @param {string} state */
  _become(state) {
    if (this.state !== state) this._tell("state", this.state = state);
  }

  /** @param {string} type @param {any} detail */
  _tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
}

/** Server-sent events of `/v1/events` or a route, as a `MessageEvent` each. */
export class EventStream extends Resuming {
  lastEventId = "";
  _id = "";
  _type = "message";
  /** @type {string[]} */ _data = [];
  /** @type {Refusal | undefined} */ _end = undefined;

  /** @param {string} [ticket] */
  async _serve(ticket) {
    const url = new URL(this._url), abort = this._abort = new AbortController();
    if (ticket) url.searchParams.set("ticket", ticket);
    // The header would cost pages of other origins a preflight.
    if (this.lastEventId) url.searchParams.set("last_event_id", this.lastEventId);
    this._alive();
    const answer = await fetch(url, { signal: abort.signal, headers: { Accept: "text/event-stream" } });
    const isStream = answer.headers.get("content-type")?.startsWith("text/event-stream");
    if (!answer.ok || !answer.body || !isStream) throw await refusal(answer);
    this._opened();
    this._reset();
    this._end = undefined;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let held = ""; ;) {
      const { done, value } = await reader.read().catch(() => ({ done: true, value: "" }));
      if (done) break;
      this._alive();
      const lines = (held + value).split(/\r\n|\n|\r(?!$)/);
      held = lines.pop() ?? "";
      for (const line of lines) this._line(line);
    }
    if (this._end) throw this._end;
  }

  _reset() {
    this._data = [];
    this._type = "message";
  }

  /** @param {string} line */
  _line(line) {
    if (!line) return this._event();
    const [, name, value] = /** @type {string[]} */ (/^([^:]*):? ?(.*)$/s.exec(line));
    if (name === "data") this._data.push(value);
    else if (name === "event") this._type = value || "message";
    else if (name === "id" && !value.includes("\0")) this._id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this._waitS = Number(value) / 1000;
  }

  _event() {
    const data = this._data.join("\n"), type = this._type, { length } = this._data;
    this._reset();
    this.lastEventId = this._id || this.lastEventId;
    if (!length) return;
    if (type === "gap") this._tell(type, JSON.parse(data));
    else if (type === "error") this._end = new Refusal(JSON.parse(data));
    else this.dispatchEvent(new MessageEvent(type, { data, lastEventId: this.lastEventId }));
  }

  _drop() { this._abort?.abort(); }
}

/**
 * The WebSocket of `/v1/stream`, with an `event` for each. Connected again, subscriptions go on after their last event,
 * and publishes without an answer are repeated, and stored once.
 */
export class StreamSocket extends Resuming {
  /** @type {Map<string, Frame>} */ _filters = new Map();
  /** @type {Map<string, any>} */ _sent = new Map();

  /** Of addresses that do not overlap. @param {string} channel @param {{from?: string, conflate?: string}} [options] */
  subscribe(channel, options = {}) {
    const frame = { type: "subscribe", channel, ref: `+${channel}`, ...options };
    this._filters.set(channel, frame);
    this._send(frame);
  }

  /** @param {string} channel */
  unsubscribe(channel) {
    this._filters.delete(channel);
    this._send({ type: "unsubscribe", channel });
  }

  /** @param {string} channel @param {any} data @returns {Promise<string>} the id of the stored event */
  publish(channel, data) {
    const ref = crypto.getRandomValues(new Uint32Array(4)).join("-");
    const frame = { type: "publish", channel, data, ref, dedupe: true };
    this._send(frame);
    return new Promise((resolve, reject) => { this._sent.set(ref, { frame, resolve, reject }); });
  }

  close() {
    super.close();
    this._sent.forEach((each) => each.reject(new Error("closed")));
  }

  /** @param {string} [ticket] */
  async _serve(ticket) {
    const url = String(this._url).replace("http", "ws");
    const socket = this._socket = new WebSocket(url, ticket ? ["bearer", ticket] : []);
    const ping = setInterval(() => this._send({ type: "ping" }), 20_000);
    this._alive();
    socket.onmessage = ({ data }) => this._end && this._frame(JSON.parse(data));
    const reason = await new Promise((end) => {
      this._end = end;
      socket.onclose = (closed) => end(closed.reason);
    });
    this._end = undefined;
    clearInterval(ping);
    if (reason) throw new Refusal(JSON.parse(reason));
    if (!this._wasOpen) throw new Error("not open");
  }

  /** @param {Frame} frame */
  _frame(frame) {
    this._alive();
    const { type, ref, id } = frame, filter = this._filters.get(frame.channel), sent = this._sent.get(ref);
    if (type === "welcome") {
      this._opened();
      this._filters.forEach((each) => this._send(each));
      this._sent.forEach((each) => this._send(each.frame));
    } else if (type === "subscribed" && filter) filter.from = id;
    else if (type === "published" && this._sent.delete(ref)) sent.resolve(id);
    else if (type === "error") {
      const why = new Refusal(frame), again = sent?.frame ?? this._filters.get(ref?.slice(1));
      if (why.retryAfterS !== undefined && again) setTimeout(() => this._send(again), why.retryAfterS * 1000);
      else if (this._sent.delete(ref)) sent.reject(why);
      this._tell(type, why);
    } else if (/^(event|gap|reconnect)$/.test(type)) {
      if (type === "event") this._passed(frame);
      this._tell(type, frame);
    }
  }

  /** @param {Frame} event */
  _passed({ channel, id }) {
    const own = channel.split("/");
    this._filters.forEach((filter, address) => {
      const levels = address.split("/"), isOpen = /(^|\/)(#|\{[^/]*\.\.\.\})$/.test(address);
      const covers = levels.every((level, at) => /^([+#]$|\{)/.test(level) || level === own[at]);
      if (covers && (isOpen ? levels.length <= own.length : levels.length === own.length)) filter.from = id;
    });
  }

  /** @param {object} frame */
  _send(frame) { if (this.state === "open") this._socket?.send(JSON.stringify(frame)); }

  _drop() {
    this._socket?.close();
    this._end?.(""); // The socket waits for the other side.
  }
}
