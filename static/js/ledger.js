// Keeps a table up to date: the page fetches itself every few seconds, with its filters and page, and replaces the table.
import { show as showTimes } from "./times.js";

const EVERY_MS = 2000;
const at = (id, root = document) => root.getElementById(id);
let isPressed = false;
addEventListener("pointerdown", () => { isPressed = true; });
addEventListener("pointerup", () => { isPressed = false; });
addEventListener("pointercancel", () => { isPressed = false; });

function setStatus(isOn, words) {
  at("pulse").classList.toggle("on", isOn);
  if (at("pulse-words").textContent !== words) at("pulse-words").textContent = words;
}

/** Rows must not move during a press or a selection, and a focused button must not disappear. */
const isBusy = () => isPressed || document.hidden || !getSelection().isCollapsed
  || (at("ledger").contains(document.activeElement) && document.activeElement.matches("button, a"));

async function refresh() {
  if (isBusy()) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) return setStatus(false, "the gateway does not answer");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (isBusy()) return;
  const scrolled = at("ledger").querySelector(".scroll")?.scrollLeft ?? 0;
  at("ledger").replaceWith(at("ledger", page));
  at("how-many").textContent = at("how-many", page).textContent;
  const scroll = at("ledger").querySelector(".scroll");
  if (scroll) scroll.scrollLeft = scrolled;
  showTimes(at("ledger"));
  setStatus(true, "live");
}

async function keepUpToDate() {
  await refresh();
  setTimeout(keepUpToDate, EVERY_MS);
}

if (!document.querySelector(".notice.error")) keepUpToDate();
