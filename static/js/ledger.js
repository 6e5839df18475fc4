// The ledger, kept true: the page asks for itself every few seconds and takes over the rows, filters and page as they are.
import { show as showTimes } from "./times.js";

const EVERY_MS = 2000;
const at = (id, root = document) => root.getElementById(id);
let isPressed = false;
addEventListener("pointerdown", () => { isPressed = true; });
addEventListener("pointerup", () => { isPressed = false; });
addEventListener("pointercancel", () => { isPressed = false; });

function say(isOn, words) {
  at("pulse").classList.toggle("on", isOn);
  if (at("pulse-words").textContent !== words) at("pulse-words").textContent = words;
}

/** Rows must not move under a press or a selection, nor a focused button vanish. */
const isBusy = () => isPressed || document.hidden || !getSelection().isCollapsed
  || (at("ledger").contains(document.activeElement) && document.activeElement.matches("button, a"));

async function refresh() {
  if (isBusy()) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok || answer.redirected) return say(false, "the gateway does not answer");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (isBusy()) return;
  const scrolled = at("ledger").querySelector(".scroll")?.scrollLeft ?? 0;
  at("ledger").replaceWith(at("ledger", page));
  at("how-many").textContent = at("how-many", page).textContent;
  const scroll = at("ledger").querySelector(".scroll");
  if (scroll) scroll.scrollLeft = scrolled;
  showTimes(at("ledger"));
  say(true, "live");
}

async function keepTrue() {
  await refresh();
  setTimeout(keepTrue, EVERY_MS);
}

if (!document.querySelector(".notice.error")) keepTrue();
