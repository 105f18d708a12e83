"use strict";

// Plots: each .plot element contains its figure as JSON.
const NARROW_PX = 640;
const PRINT_WIDTH_PX = 680;
const plots = [...document.querySelectorAll(".plot")];

function draw(element) {
  const figure = JSON.parse(element.firstElementChild.textContent);
  if (window.innerWidth < NARROW_PX) {
    figure.layout.margin = { ...figure.layout.margin, l: 48, r: 12 };
    if (figure.data.length > 6) figure.layout.showlegend = false;
  }
  // Only these buttons, because a default button of Plotly sends the plot's data to a server.
  const buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
  const options = { displaylogo: false, displayModeBar: window.innerWidth < NARROW_PX ? false : "hover", responsive: true, modeBarButtons: buttons };
  Plotly.newPlot(element, figure.data, figure.layout, options);
}

function drawNext() {
  const next = plots.find((plot) => !plot.dataset.drawn);
  if (!next) return;
  next.dataset.drawn = "yes";
  draw(next);
  setTimeout(drawNext);
}

drawNext();

// Paper is narrower than a screen, and Plotly does not resize plots for printing.
window.addEventListener("beforeprint", () => {
  plots.forEach((plot) => {
    if (!plot.dataset.drawn) draw(plot);
    plot.dataset.drawn = "yes";
    const fraction = plot.closest(".pair") ? 1 / 2 : plot.closest(".slices") ? 1 / 3 : 1;
    Plotly.relayout(plot, { width: PRINT_WIDTH_PX * fraction, autosize: false });
  });
});
window.addEventListener("afterprint", () => {
  plots.forEach((plot) => Plotly.relayout(plot, { width: null, autosize: true }));
});

// The table of all trials: a click on a heading sorts the rows; the words of the input filter them.
function order(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.order ?? cell.textContent;
  const number = Number(text);
  return { text, number, isNumber: text !== "" && !Number.isNaN(number) };
}

function compare(one, other) {
  if (one.isNumber && other.isNumber) return one.number - other.number;
  return one.text.localeCompare(other.text, undefined, { numeric: true });
}

function sortBy(table, column) {
  const headings = [...table.tHead.rows[0].cells];
  const heading = headings[column];
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  headings.forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, order: order(row, column) }));
  // Unknown values come last in both directions.
  const empty = (entry) => entry.order.text === "";
  rows.sort((a, b) => empty(a) - empty(b) || (ascending ? 1 : -1) * compare(a.order, b.order));
  table.tBodies[0].append(...rows.map((entry) => entry.row));
}

document.querySelectorAll("table.sortable").forEach((table) => {
  table.tHead.querySelectorAll("button").forEach((button, column) => {
    button.addEventListener("click", () => sortBy(table, column));
  });
  const input = document.querySelector(".filter input");
  const shown = document.querySelector(".filter output");
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.innerText.toLowerCase() }));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach(({ row, text }) => {
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    });
    shown.textContent = words.length ? `${count} of ${rows.length}` : "";
  });
});
