// Leaves empty fields out of a form of filters: in an address, an empty filter is refused.
for (const form of document.querySelectorAll("form.filters")) {
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && !field.value.trim()) field.disabled = true;
  });
}
// A page that is shown again from the browser's memory has its fields back.
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form.filters :disabled")) field.disabled = false;
});
