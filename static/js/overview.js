// The overview: the last hour is part of the page; /dashboards/live sends an update every second.
import { EventStream } from "../apimgmt.js";
import { Chart, columns, weight } from "./charts.js";
import { show as showTimes } from "./times.js";

const LIVE_S = 300, HOUR_S = 3600, BARS = 7, CLOSED = 12;
const seed = JSON.parse(document.getElementById("seed").textContent);
const protocols = Object.keys(seed.protocols);
const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const rate = (count) => number.format(count < 10 ? Math.round(count * 10) / 10 : Math.round(count));
const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
const now = () => Date.now() / 1000;
const element = (name, properties = {}) => Object.assign(document.createElement(name), properties);

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  for (; count >= 1024 && unit < 3; unit += 1) count /= 1024;
  return `${unit && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

// Charts

const liveChart = new Chart("live-chart", protocols, () => [now() - LIVE_S, now()], { legend: "live-legend", fill: true });
const hourChart = new Chart("hour-chart", protocols, () => [now() - HOUR_S, now()]);
let seconds = [];

function addSeconds(more) {
  seconds = [...seconds, ...more].filter((second) => second.at > now() - LIVE_S - 5);
  liveChart.show([
    seconds.map((second) => second.at),
    ...protocols.map((name) => seconds.map((second) => weight(name, second.calls[name] ?? 0, second.messages[name] ?? 0))),
  ]);
}

// Lists: a row remains the same element while its number grows, so that hovering and clicking it are not disturbed

function bars(id, counts, { words = (name) => name, link = null } = {}) {
  const list = at(id);
  const top = Object.entries(counts).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a).slice(0, BARS);
  const rows = new Map([...list.children].map((row) => [row.dataset.name, row]));
  const shown = top.map(([name, count]) => {
    const row = rows.get(name) ?? newBar(name, words(name), link?.(name));
    row.querySelector(".number").textContent = number.format(count);
    Object.assign(row.querySelector("progress"), { max: top[0][1], value: count });
    return row;
  });
  const isSame = shown.length === list.children.length && shown.every((row, index) => row === list.children[index]);
  if (!isSame) list.replaceChildren(...shown);
  at(`${id}-none`).hidden = shown.length > 0;
}

function newBar(name, words, link) {
  const row = element("div", { className: "row" });
  row.dataset.name = name;
  const label = element(link ? "a" : "span", { textContent: words, title: words, className: "name" });
  if (link) label.href = link;
  const progress = element("progress");
  progress.setAttribute("aria-hidden", "true");
  row.append(label, element("span", { className: "number" }), progress);
  return row;
}

let hour = seed;

function showHour() {
  bars("refused", hour.refused, {
    words: (outcome) => seed.outcomes[outcome]?.[0] ?? outcome,
    link: (outcome) => `/docs/refusals#${seed.outcomes[outcome]?.[1] ?? ""}`,
  });
  bars("consumers", hour.consumers, {
    words: (name) => name || "without a valid key", link: (name) => name && `/dashboards/usage?consumer=${encodeURIComponent(name)}` });
  bars("targets", hour.targets, {
    words: (name) => name || "no such route or channel", link: (name) => name && `/dashboards/usage?target=${encodeURIComponent(name)}` });
}

function showMinutes() {
  hourChart.show(columns(hour.minutes, protocols, now() - HOUR_S, now() - 60, 60));
  at("calls-hour").textContent = number.format(hour.minutes.reduce((total, row) => total + row[2], 0));
  at("messages-hour").textContent = number.format(hour.minutes.reduce((total, row) => total + row[3], 0));
}

async function refreshHour() {
  if (document.hidden) return;
  const answer = await fetch("/dashboards/last-hour", { headers: { Accept: "application/json" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) return;
  hour = await answer.json();
  showHour();
  showMinutes();
}

const add = (counts, more) => {
  for (const [name, count] of Object.entries(more)) counts[name] = (counts[name] ?? 0) + count;
};

// Connections that just closed

let closed = [];

function showClosed(more) {
  const shown = new Set(closed.map((row) => row.id));
  const fresh = more.filter((row) => !shown.has(row.id));
  closed = [...fresh, ...closed].sort((a, b) => b.closed_at - a.closed_at).slice(0, CLOSED);
  const body = at("closed");
  if (!body) return;
  at("closed-none").hidden = closed.length > 0;
  body.closest(".scroll").hidden = closed.length === 0;
  if (!fresh.length) return;
  body.replaceChildren(...closed.map(closedRow));
  showTimes(body);
}

function closedRow(row) {
  const line = element("tr");
  line.dataset.id = row.id;
  const cell = (content, className = "") => Object.assign(line.insertCell(), { className }).append(content);
  cell(element("span", { className: `tag is-${row.protocol}`, textContent: seed.protocols[row.protocol] ?? row.protocol }));
  cell(row.consumer);
  cell(row.route || row.channel || "—");
  cell(element("span", { className: row.error_class ? "tag bad" : "tag good", textContent: seed.errorClasses[row.error_class] ?? row.error_class }));
  cell(String(row.close_code || "—"), "number");
  cell(`${number.format(row.messages_in)} / ${number.format(row.messages_out)}`, "number");
  cell(element("time", { dateTime: new Date(row.closed_at * 1000).toISOString() }));
  return line;
}

// Live updates

function showFigures(second) {
  at("messages").textContent = rate(sum(second.messages));
  at("calls").textContent = rate(sum(second.calls));
  at("latency").textContent = second.latency_ms === null ? "–" : `${second.latency_ms} ms`;
  at("data").textContent = `${bytes(second.bytes_in + second.bytes_out)}/s`;
  at("data-note").textContent = `${bytes(second.bytes_in)}/s in · ${bytes(second.bytes_out)}/s out`;
}

function showOpen(counts) {
  at("open").textContent = number.format(sum(counts));
  const chips = protocols.filter((name) => counts[name]).map((name) =>
    element("span", { className: `chip is-${name}`, textContent: `${number.format(counts[name])} ${seed.protocols[name]}` }));
  at("open-by-protocol").replaceChildren(...(chips.length ? chips : [element("span", { className: "note", textContent: "no connections" })]));
}

function showTick(tick) {
  addSeconds(tick.seconds);
  if (tick.seconds.length) showFigures(tick.seconds.at(-1));
  showOpen(tick.open);
  add(hour.refused, tick.refused);
  add(hour.consumers, tick.consumers);
  add(hour.targets, tick.targets);
  showHour();
  showClosed(tick.closed);
}

function listen() {
  const stream = new EventStream("/dashboards/live");
  const setStatus = (isOn, words) => {
    at("pulse").classList.toggle("on", isOn);
    if (at("pulse-words").textContent !== words) at("pulse-words").textContent = words;
  };
  stream.addEventListener("history", (event) => { seconds = []; addSeconds(JSON.parse(event.data)); });
  stream.addEventListener("message", (event) => { setStatus(true, "live"); showTick(JSON.parse(event.data)); });
  stream.addEventListener("away", () => setStatus(false, "NATS is unavailable"));
  stream.addEventListener("full", () => setStatus(false, "too many open dashboards"));
  stream.addEventListener("state", (event) => {
    if (event.detail === "waiting") setStatus(false, "reconnecting");
    if (event.detail === "closed") {
      setStatus(false, "signed out");
      setTimeout(listen, 5000);
    }
  });
  addEventListener("pagehide", () => stream.close(), { once: true });
}

showHour();
showMinutes();
showClosed(seed.closed);
addSeconds([]);
setInterval(refreshHour, 60_000);
document.addEventListener("visibilitychange", refreshHour);
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
listen();
