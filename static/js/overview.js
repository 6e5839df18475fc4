// The overview: the last hour from the page itself, then every second from /dashboards/live.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { show } from "./times.js";

const PROTOCOLS = ["http", "websocket", "sse", "mqtt", "amqp"];
const WINDOW_S = 300;
const seed = JSON.parse(document.getElementById("seed").textContent);
const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
const colour = (name) => getComputedStyle(document.querySelector(`.legend .is-${name}`)).color;
const css = (name) => getComputedStyle(document.querySelector(`.${name}`)).color;

function bytes(count) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (count < 1024) return `${count < 10 && unit !== "B" ? count.toFixed(1) : Math.round(count)} ${unit}`;
    count /= 1024;
  }
  return `${count.toFixed(1)} GiB`;
}

// Charts

const series = (values) => [{}, ...PROTOCOLS.map((name) => ({
  label: seed.protocols[name], stroke: () => colour(name), width: 2, points: { show: false }, spanGaps: true, ...values,
}))];
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const axis = () => ({ stroke: () => css("soft"), grid: { stroke: "rgba(128,132,165,.16)", width: 1 }, ticks: { show: false }, font: "12px system-ui" });

function chart(id, data, options = {}) {
  const box = at(id);
  const size = () => ({ width: box.clientWidth, height: box.clientHeight });
  const plot = new uPlot({
    ...size(),
    cursor: { y: false, points: { size: 7 } },
    legend: { show: false },
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.15, 1)] }, ...options.scales },
    axes: [{ ...axis(), space: 70, values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000)), incrs: [60, 300, 600, 900] }, { ...axis(), size: 48, values: (_, ticks) => ticks.map((tick) => short.format(tick)) }],
    series: series(options.values),
  }, data, box);
  new ResizeObserver(() => plot.setSize(size())).observe(box);
  document.addEventListener("themechange", () => plot.redraw());
  return plot;
}

const rates = [[], ...PROTOCOLS.map(() => [])];
const now = () => Date.now() / 1000;
const live = chart("live-chart", rates, { scales: { x: { range: () => [now() - WINDOW_S, now()] } } });

function addSecond(said) {
  rates[0].push(said.at);
  PROTOCOLS.forEach((name, index) => {
    const count = (said.messages[name] ?? 0) + (name === "http" ? said.calls[name] ?? 0 : 0);
    rates[index + 1].push(count);
  });
  while (rates[0].length && rates[0][0] < said.at - WINDOW_S) rates.forEach((column) => column.shift());
}

function hour() {
  const minutes = [...new Set(seed.minutes.map(([minute]) => minute))].sort((a, b) => a - b);
  const columns = PROTOCOLS.map(() => minutes.map(() => 0));
  for (const [minute, name, calls, messages] of seed.minutes) {
    columns[PROTOCOLS.indexOf(name)][minutes.indexOf(minute)] += messages + (name === "http" ? calls : 0);
  }
  return [minutes, ...columns];
}
chart("hour-chart", hour(), { scales: { x: { range: () => [now() - 3600, now()] } }, values: { points: { show: true, size: 4 } } });

// Lists

function bars(id, entries, link) {
  const list = at(id);
  const most = Math.max(...entries.map(([, count]) => count), 1);
  list.replaceChildren(...entries.map(([name, count, words]) => {
    const row = document.createElement("div");
    row.className = "row";
    const label = document.createElement(link ? "a" : "span");
    label.textContent = words ?? name;
    if (link) label.href = link(name);
    const value = document.createElement("span");
    value.className = "number";
    value.textContent = number.format(count);
    const progress = document.createElement("progress");
    progress.max = most;
    progress.value = count;
    progress.setAttribute("aria-label", `${label.textContent}: ${count}`);
    row.append(label, value, progress);
    return row;
  }));
  list.parentElement.querySelector(".empty").hidden = entries.length > 0;
}

const refused = { ...seed.refused };
const busy = { consumers: new Map(), targets: new Map() };

function showRefused() {
  const entries = Object.entries(refused).sort(([, a], [, b]) => b - a).slice(0, 8);
  bars("refusals", entries.map(([name, count]) => [name, count, seed.outcomes[name] ?? name]), (name) => `/docs/refusals#${name}`);
}
showRefused();

function addBusy(kind, entries) {
  // What was busy a minute ago fades: each second keeps 97 % of the one before.
  for (const [name, weight] of busy[kind]) busy[kind].set(name, weight * 0.97);
  for (const [name, count] of entries) busy[kind].set(name, (busy[kind].get(name) ?? 0) + count * 0.03);
  const top = [...busy[kind]].filter(([, weight]) => weight > 0.05).sort(([, a], [, b]) => b - a).slice(0, 6);
  bars(kind, top.map(([name, weight]) => [name, Math.round(weight * 10) / 10]));
}

function showClosed(rows) {
  if (!rows.length) return;
  const body = at("closed");
  body.replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr");
    const cells = [seed.protocols[row.protocol] ?? row.protocol, row.consumer, row.route || row.channel || "—", row.close_code || "—"];
    for (const text of cells) line.insertCell().textContent = text;
    const reason = document.createElement("span");
    reason.className = row.error_class ? "tag bad" : "tag good";
    reason.textContent = seed.errorClasses[row.error_class] ?? row.error_class;
    line.insertCell().append(reason);
    const traffic = line.insertCell();
    traffic.className = "number";
    traffic.textContent = `${number.format(row.messages_in)} / ${number.format(row.messages_out)}`;
    const time = document.createElement("time");
    time.dateTime = new Date(row.closed_at * 1000).toISOString();
    line.insertCell().append(time);
    return line;
  }));
  show(body);
  at("no-closed").hidden = true;
}

// Live

function showSecond(said) {
  addSecond(said);
  live.setData(rates);
  at("open").textContent = number.format(sum(said.open));
  at("open-note").textContent = Object.entries(said.open).map(([name, count]) => `${count} ${seed.protocols[name]}`).join(" · ") || "nobody is connected";
  at("messages").textContent = number.format(sum(said.messages));
  at("calls").textContent = number.format(said.calls.http ?? 0);
  at("calls-note").textContent = said.latency_ms === null ? "no answer this second" : `${said.latency_ms} ms on average`;
  at("data").textContent = `${bytes(said.bytes_in + said.bytes_out)}/s`;
  at("data-note").textContent = `${bytes(said.bytes_in)} in · ${bytes(said.bytes_out)} out`;
  for (const [cause, count] of Object.entries(said.refused)) refused[cause] = (refused[cause] ?? 0) + count;
  showRefused();
  addBusy("consumers", said.consumers);
  addBusy("targets", said.targets);
  showClosed(said.closed);
}

const source = new EventSource("/dashboards/live");
const pulse = at("pulse");
const state = (isOn, words) => { pulse.classList.toggle("on", isOn); at("pulse-words").textContent = words; };
source.addEventListener("open", () => state(true, "live"));
source.addEventListener("error", () => state(false, "reconnecting"));
source.addEventListener("history", (event) => {
  rates.forEach((column) => { column.length = 0; });
  JSON.parse(event.data).forEach(addSecond);
  live.setData(rates);
});
source.addEventListener("message", (event) => showSecond(JSON.parse(event.data)));
addEventListener("pagehide", () => source.close());
