// Copy buttons. A page that shows a secret once also replaces its URL in the history, so that a reload submits nothing again.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const label = button.querySelector("[data-copy-label]");
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    label.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    label.textContent = "Selected: press Ctrl-C";
  }
});

const shown = document.querySelector("[data-then]");
if (shown) history.replaceState(null, "", shown.dataset.then);
