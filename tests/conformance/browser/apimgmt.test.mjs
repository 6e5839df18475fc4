// static/apimgmt.js against answers that are written here: what it reads, and when it connects again.
import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { EventStream, Refusal, StreamSocket, tickets } from "../../../static/apimgmt.js";

const URL_ = "http://gateway.test/v1/events?channel=trades";
const REFUSED = { "content-type": "application/problem+json" };
let asked, answers, sockets;

const events = (...parts) => () => new Response(
  new ReadableStream({
    start(stream) {
      for (const part of parts) stream.enqueue(new TextEncoder().encode(part));
      stream.close();
    },
  }), { headers: { "content-type": "text/event-stream; charset=utf-8" } });
const refused = (status, problem, headers = {}) => () => Response.json(problem, { status, headers: { ...REFUSED, ...headers } });
const never = () => new Promise(() => {});

class FakeSocket {
  constructor(url, protocols) {
    Object.assign(this, { url, protocols, sent: [] });
    sockets.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  say(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
  end(reason) { this.onclose({ code: 1006, reason: reason ? JSON.stringify(reason) : "" }); }
  close() {}
}

beforeEach(() => {
  [asked, answers, sockets] = [[], [], []];
  globalThis.fetch = async (url, init) => { asked.push([new URL(url), init]); return (answers.shift() ?? never)(); };
  globalThis.WebSocket = FakeSocket;
  mock.restoreAll();
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  mock.method(Math, "random", () => 0);
});

const settle = async () => { for (let turn = 0; turn < 50; turn += 1) await new Promise((resume) => setImmediate(resume)); };
const seen = (target, ...types) => {
  const all = [];
  for (const type of types) target.addEventListener(type, (event) => all.push(event.data ?? event.detail));
  return all;
};

test("events are read as WHATWG HTML 9.2.6 says, however they are cut", async () => {
  const text = ": comment\r\nretry: 100\r\n\r\nid: 1\ndata: one\n\ndata\rdata:two\r\rid: 2\n\nevent: other\ndata: {\"é\": 1}\n\ndata: half";
  const bytes = new TextEncoder().encode(text);
  for (const size of [1, 2, 7, bytes.length]) {
    const parts = [];
    for (let at = 0; at < bytes.length; at += size) parts.push(bytes.slice(at, at + size));
    answers = [() => new Response(new Blob(parts).stream(), { headers: { "content-type": "text/event-stream" } })];
    const stream = new EventStream(URL_);
    const messages = seen(stream, "message"), others = seen(stream, "other");
    await settle();
    assert.deepEqual([messages, others], [["one", "\ntwo"], ['{"é": 1}']]);
    assert.equal(stream.lastEventId, "2");
    stream.close();
  }
});

test("a stream resumes after its last id with the same ticket, when the server says", async () => {
  answers = [refused(201, { ticket: "tickr_1" }), events("retry: 5000\n\nid: 7\n\n")];
  const stream = new EventStream(URL_, { ticket: tickets("http://gateway.test/v1/tickets", { headers: { "X-API-Key": "k" } }) });
  const states = seen(stream, "state");
  await settle();
  assert.equal(asked[0][1].body, '{"resumable": true}');
  assert.equal(asked[0][1].headers["X-API-Key"], "k");
  assert.equal(asked[1][0].search, "?channel=trades&ticket=tickr_1");
  mock.timers.tick(4999);
  await settle();
  assert.equal(asked.length, 2);
  mock.timers.tick(1);
  await settle();
  assert.equal(asked[2][0].search, "?channel=trades&ticket=tickr_1&last_event_id=7");
  assert.deepEqual(states, ["connecting", "open", "waiting", "connecting"]);
  stream.close();
  assert.equal(states.at(-1), "closed");
});

test("a ticket that is refused is replaced", async () => {
  const minted = ["tickr_1", "tickr_2"];
  answers = [events("retry: 0\n\n"), refused(401, { reason: "unauthenticated" })];
  const stream = new EventStream(URL_, { ticket: () => minted.shift() });
  for (let turn = 0; turn < 3; turn += 1) { await settle(); mock.timers.tick(2000); }
  await settle();
  assert.deepEqual(asked.map(([url]) => url.searchParams.get("ticket")), ["tickr_1", "tickr_1", "tickr_2"]);
  stream.close();
});

test("a fresh credential that is refused is final, and so is a lost right", async () => {
  for (const answer of [refused(401, { reason: "unauthenticated" }), refused(403, { reason: "forbidden" }),
    events('event: error\ndata: {"reason": "taken-over", "retry_after_s": 3600}\n\n')]) {
    answers = [answer];
    const stream = new EventStream(URL_);
    const errors = seen(stream, "error");
    await settle();
    assert.ok(errors[0] instanceof Refusal);
    assert.equal(stream.state, "closed");
  }
});

test("it waits as long as a refusal says, as a header, a problem or an event", async () => {
  for (const answer of [refused(429, { reason: "rate-limited", retry_after_s: 9 }), refused(503, {}, { "retry-after": "9" }),
    events('event: error\ndata: {"reason": "rate-limited", "retry_after_s": 9}\n\n')]) {
    [asked, answers] = [[], [answer]];
    const stream = new EventStream(URL_);
    await settle();
    mock.timers.tick(8999);
    await settle();
    assert.equal(asked.length, 1);
    mock.timers.tick(1);
    await settle();
    assert.equal(asked.length, 2);
    stream.close();
  }
});

test("without an answer it waits longer each time, and a silent stream is given up", async () => {
  answers = [() => { throw new TypeError("no network"); }, () => { throw new TypeError("no network"); },
    () => { throw new TypeError("no network"); }];
  const stream = new EventStream(URL_);
  for (const waitS of [2, 2, 4]) {
    await settle();
    const before = asked.length;
    mock.timers.tick(waitS * 1000 - 1);
    await settle();
    assert.equal(asked.length, before);
    mock.timers.tick(1);
  }
  await settle();
  assert.equal(asked.at(-1)[1].signal.aborted, false);
  mock.timers.tick(45_000);
  assert.equal(asked.at(-1)[1].signal.aborted, true);
  stream.close();
});

test("a gap is reported", async () => {
  answers = [events('event: gap\ndata: {"from": "1", "to": "5", "cause": "retention"}\n\nid: 5\ndata: 5\n\n')];
  const stream = new EventStream(URL_);
  const gaps = seen(stream, "gap");
  await settle();
  assert.deepEqual(gaps, [{ from: "1", to: "5", cause: "retention" }]);
  assert.equal(stream.lastEventId, "5");
  stream.close();
});

test("a socket subscribes again after its last events, and repeats what was not answered", async () => {
  const socket = new StreamSocket("https://gateway.test/v1/stream", { ticket: () => "tickr_1" });
  const received = seen(socket, "event"), told = seen(socket, "reconnect");
  socket.subscribe("trades", { from: "earliest" });
  socket.subscribe("sensors/{id}/t");
  const stored = [socket.publish("trades", 1), socket.publish("trades", 2)];
  await settle();
  assert.deepEqual([sockets[0].url, sockets[0].protocols], ["wss://gateway.test/v1/stream", ["bearer", "tickr_1"]]);
  sockets[0].say({ type: "welcome" });
  assert.deepEqual(sockets[0].sent.map(({ type, from }) => [type, from]),
    [["subscribe", "earliest"], ["subscribe", undefined], ["publish", undefined], ["publish", undefined]]);
  sockets[0].say({ type: "subscribed", channel: "sensors/{id}/t", id: "10" });
  sockets[0].say({ type: "event", channel: "trades", id: "3", data: 1 });
  sockets[0].say({ type: "event", channel: "sensors/a/t", id: "11", data: 1 });
  sockets[0].say({ type: "event", channel: "sensors/a/b/t", id: "99", data: 1 });
  sockets[0].say({ type: "published", ref: sockets[0].sent[2].ref, id: "4" });
  assert.equal(await stored[0], "4");
  sockets[0].say({ type: "reconnect", by: "soon" });
  sockets[0].end({ reason: "draining", retry_after_s: 1 });
  await settle();
  mock.timers.tick(1000);
  await settle();
  sockets[1].say({ type: "welcome" });
  assert.deepEqual(sockets[1].sent.map(({ type, from }) => [type, from]),
    [["subscribe", "3"], ["subscribe", "11"], ["publish", undefined]]);
  assert.equal(sockets[1].sent[2].ref, sockets[0].sent[3].ref);
  assert.ok(sockets[1].sent[2].dedupe);
  assert.deepEqual([received.length, told.length], [3, 1]);
  stored[1].catch(() => {});
  socket.close();
});

test("a socket resumes an address with a rest after the last event below it", async () => {
  for (const address of ["files/{path...}", "files/#"]) {
    const socket = new StreamSocket("https://gateway.test/v1/stream", { ticket: () => "tickr_1" });
    socket.subscribe(address);
    await settle();
    sockets.at(-1).say({ type: "welcome" });
    sockets.at(-1).say({ type: "event", channel: "files/a b/c", id: "7", data: 1 });
    sockets.at(-1).say({ type: "event", channel: "files", id: "8", data: 1 });
    sockets.at(-1).end({ reason: "draining", retry_after_s: 1 });
    await settle();
    mock.timers.tick(1000);
    await settle();
    sockets.at(-1).say({ type: "welcome" });
    assert.deepEqual(sockets.at(-1).sent.map(({ from }) => from), ["7"]);
    socket.close();
  }
});

test("a publish is repeated when a limit says, and rejected by any other refusal", async () => {
  const socket = new StreamSocket("ws://gateway.test/v1/stream");
  await settle();
  sockets[0].say({ type: "welcome" });
  const stored = socket.publish("trades", 1), refusal = socket.publish("nowhere", 1);
  const [{ ref }, { ref: other }] = sockets[0].sent;
  sockets[0].say({ type: "error", ref, reason: "rate-limited", retry_after_s: 2 });
  sockets[0].say({ type: "error", ref: other, reason: "not-found" });
  await assert.rejects(refusal, Refusal);
  mock.timers.tick(2000);
  assert.equal(sockets[0].sent.at(-1).ref, ref);
  sockets[0].say({ type: "published", ref, id: "5" });
  assert.equal(await stored, "5");
  socket.close();
});

test("a socket that another connection took over stays closed", async () => {
  const socket = new StreamSocket("ws://gateway.test/v1/stream");
  await settle();
  sockets[0].say({ type: "welcome" });
  const pending = socket.publish("trades", 1);
  sockets[0].end({ reason: "taken-over" });
  await assert.rejects(pending);
  assert.equal(socket.state, "closed");
});

test("a socket that stays silent is given up and opened again", async () => {
  const socket = new StreamSocket("ws://gateway.test/v1/stream");
  await settle();
  sockets[0].say({ type: "welcome" });
  mock.timers.tick(20_000);
  assert.deepEqual(sockets[0].sent, [{ type: "ping" }]);
  mock.timers.tick(25_000);
  await settle();
  mock.timers.tick(2000);
  await settle();
  assert.equal(sockets.length, 2);
  socket.close();
});
