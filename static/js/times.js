// Relative times that are updated while the page is open; the absolute time is the title.
const STEPS = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [Infinity, "day", 86400]];
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });

export function relative(instant) {
  const ago = (instant - Date.now()) / 1000;
  const [, unit, size] = STEPS.find(([limit]) => Math.abs(ago) < limit);
  return words.format(Math.round(ago / size), unit);
}

export function show(root = document) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const instant = new Date(time.dateTime);
    time.textContent = relative(instant);
    time.title = instant.toLocaleString();
  }
}

show();
setInterval(show, 10_000);
