// Line charts with one line per protocol in the colours of the page: uPlot draws, the legend below shows the numbers.
import uPlot from "../vendor/uplot/uPlot.esm.js";

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const exact = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const MINUTE = 60, HOUR = 3600, DAY = 86400;

/** Sum rows [instant, protocol, calls, messages, …] into columns; a protocol without usage in a slot is zero there. */
export function columns(rows, protocols, from, to, slot) {
  const start = Math.floor(from / slot) * slot + slot;
  const instants = [];
  for (let at = start; at <= to; at += slot) instants.push(at);
  const sums = protocols.map(() => instants.map(() => 0));
  for (const [at, protocol, calls, messages] of rows) {
    const column = sums[protocols.indexOf(protocol)], index = Math.round((at - start) / slot);
    if (column && index >= 0 && index < instants.length) column[index] += weight(protocol, calls, messages);
  }
  return [instants, ...sums];
}

/** The value of a protocol's line: messages and, for REST, calls. */
export const weight = (protocol, calls, messages) => messages + (protocol === "http" ? calls : 0);

export class Chart {
  /** Draw into the element `id`; `range` returns the span of time to show, in Unix seconds. */
  constructor(id, protocols, range, { legend = null, fill = false } = {}) {
    this.box = document.getElementById(id);
    this.protocols = protocols;
    this.legend = legend && document.getElementById(legend);
    this.data = [[], ...protocols.map(() => [])];
    const size = () => ({ width: this.box.clientWidth, height: this.box.clientHeight });
    this.plot = new uPlot({
      ...size(),
      padding: [8, 8, 0, 0],
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      legend: { show: false },
      scales: { x: { range }, y: { range: (_, low, high) => [0, Math.max((high ?? 0) * 1.1, 1)] } },
      axes: [
        { ...this.axis(), size: 30, space: 64, incrs: [MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY],
          values: (_, ticks, axis, space, step) => ticks.map((tick) => (step >= DAY ? day : time).format(tick * 1000)) },
        { ...this.axis(), size: 46, values: (_, ticks) => ticks.map((tick) => compact.format(tick)) },
      ],
      series: [{}, ...protocols.map((name) => ({
        stroke: () => colour(`--${name}`), width: 2, points: { show: false },
        fill: fill ? () => `color-mix(in srgb, ${colour(`--${name}`)} 7%, transparent)` : undefined,
      }))],
      hooks: { setCursor: [() => this.showLegend()] },
    }, this.data, this.box);
    new ResizeObserver(() => this.plot.setSize(size())).observe(this.box);
    const redraw = () => this.plot.redraw(true);
    document.addEventListener("themechange", redraw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  axis() {
    return { stroke: () => colour("--soft"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  }

  /** Show new columns; a protocol without usage in any of them has no line. */
  show(data) {
    const isSeen = data.slice(1).map((column) => column.some((count) => count > 0));
    this.data = [data[0], ...data.slice(1).map((column, index) => (isSeen[index] ? column : column.map(() => null)))];
    this.plot.setData(this.data);
    for (const entry of this.legend?.children ?? []) entry.hidden = !isSeen[this.protocols.indexOf(entry.dataset.protocol)];
    this.showLegend();
  }

  /** Show in the legend the values under the pointer, or the newest. */
  showLegend() {
    const index = this.plot?.cursor.idx ?? this.data[0].length - 1;
    for (const entry of this.legend?.children ?? []) {
      const count = this.data[this.protocols.indexOf(entry.dataset.protocol) + 1]?.[index];
      entry.querySelector("b").textContent = count == null ? "" : exact.format(count);
    }
  }
}
