// Usage over time: one line per protocol, from the numbers in the page.
import { Chart, columns } from "./charts.js";

const seed = JSON.parse(document.getElementById("seed").textContent);
const protocols = Object.keys(seed.protocols);
if (document.getElementById("usage-chart")) {
  const to = Date.now() / 1000, from = to - seed.periodSeconds;
  const chart = new Chart("usage-chart", protocols, () => [from, to], { legend: "usage-legend", fill: true });
  chart.show(columns(seed.slots, protocols, from, to, seed.slotSeconds));
}
