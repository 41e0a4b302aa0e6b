"use strict";

// A figure's slider through its slices.
const setUp = (figure) => {
  const slices = figure.querySelectorAll(".stage svg");
  const slider = figure.querySelector("input[type=range]");
  const output = figure.querySelector("output");
  if (!slider) return;
  const show = () => {
    slices.forEach((slice, index) => slice.toggleAttribute("hidden", index !== Number(slider.value)));
    const text = slices[slider.value].dataset.name;
    output.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };
  slider.addEventListener("input", show);
  figure.querySelector(".stage").addEventListener("wheel", (event) => {
    if (!event.shiftKey) return; // the plain wheel scrolls the page
    event.preventDefault();
    slider.value = Number(slider.value) + Math.sign(event.deltaY || event.deltaX);
    show();
  }, { passive: false });
  show();
};

// The table of cases: sorting by a column's button, filtering by text, label, method and status, pictures by a click.
{
  const table = document.getElementById("cases");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const count = document.getElementById("cases-count");
  const filters = Array.from(document.querySelectorAll("[data-filter]"));

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value;
  };
  // Pictures stay in templates until their row is opened, so that the page is ready at once.
  const pictures = new Map(Array.from(document.querySelectorAll("template[data-case]"),
    (template) => [JSON.stringify([template.dataset.case, template.dataset.label]), template]));
  const close = (row) => {
    if (!row.nextElementSibling?.classList.contains("detail")) return false;
    row.nextElementSibling.remove();
    row.querySelector("button.open").setAttribute("aria-expanded", "false");
    return true;
  };
  const closeAll = () => rows.forEach(close);
  const toggle = (row) => {
    if (close(row)) return;
    closeAll();
    const detail = document.createElement("tr");
    detail.className = "detail";
    const cell = detail.insertCell();
    cell.colSpan = row.cells.length;
    cell.append(pictures.get(JSON.stringify([row.dataset.case, row.dataset.label])).content.cloneNode(true));
    row.after(detail);
    setUp(cell.querySelector("figure"));
    row.querySelector("button.open").setAttribute("aria-expanded", "true");
  };
  for (const row of rows) {
    if (!("pictures" in row.dataset)) continue;
    row.addEventListener("click", (event) => event.target.closest("a") || toggle(row));
  }
  const sort = (header) => {
    closeAll();
    const column = header.cellIndex;
    const numeric = header.classList.contains("number");
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (x === "" || y === "") return (x === "") - (y === ""); // undefined scores last, both ways
      return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true }));
    });
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    body.append(...rows);
  };
  const filter = () => {
    closeAll();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !filters.every((control) => {
        const wanted = control.value.trim().toLowerCase();
        if (!wanted) return true;
        const held = row.dataset[control.dataset.filter].toLowerCase();
        return control.tagName === "SELECT" ? held === wanted : held.includes(wanted);
      });
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  for (const header of table.tHead.rows[0].cells) {
    header.querySelector("button")?.addEventListener("click", () => sort(header));
  }
  for (const control of filters) control.addEventListener("input", filter);
  filter();
}

// On paper nothing can be opened.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));

// The viewer: one slider per case, one set of switches for all.
document.querySelectorAll("figure.case").forEach(setUp);
for (const box of document.querySelectorAll("[data-layer]")) {
  const apply = () => document.body.classList.toggle(`hide-${box.dataset.layer}`, !box.checked);
  box.addEventListener("input", apply);
  apply();
}
