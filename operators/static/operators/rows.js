// Tables in forms: adds and removes rows. Without this script the one empty row still works.
const number = (name, at) => name.replace(/-\d+-/, `-${at}-`);

const clear = (row) => {
  for (const cell of row.querySelectorAll("input, select")) {
    if (cell.tagName === "SELECT") cell.selectedIndex = 0;
    else cell.value = "";
  }
};

const add = (table) => {
  const total = table.querySelector("[data-rows-total]");
  const last = [...table.querySelectorAll("[data-row]")].pop();
  const row = last.cloneNode(true);
  for (const cell of row.querySelectorAll("[name]")) cell.name = number(cell.name, total.value);
  clear(row);
  row.hidden = false;
  total.value = Number(total.value) + 1;
  last.after(row);
  row.querySelector("input, select").focus();
};

document.addEventListener("click", (event) => {
  const adder = event.target.closest("[data-rows-add]");
  if (adder) add(adder.closest("[data-rows]"));
  const remover = event.target.closest("[data-row-remove]");
  if (remover) {
    const row = remover.closest("[data-row]");
    clear(row);
    row.hidden = true;
  }
});
