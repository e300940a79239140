"use strict";

function drawCharts() {
  for (const figure of document.querySelectorAll(".plot")) {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    Plotly.newPlot(figure.querySelector(".chart"), data, layout, options);
  }
}

function compare(left, right) {
  if (left === "" || right === "") return (left === "") - (right === "");
  const numbers = [Number(left), Number(right)];
  return numbers.some(Number.isNaN) ? left.localeCompare(right, undefined, { numeric: true }) : numbers[0] - numbers[1];
}

function sortBy(header) {
  const table = header.closest("table");
  const column = header.cellIndex;
  const first = header.classList.contains("number") ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = header.getAttribute("aria-sort") === first ? other : first;
  const sign = order === "ascending" ? 1 : -1;
  const value = (row) => row.cells[column].dataset.value;
  // An empty value stays last in either direction.
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const empty = value(a) === "" || value(b) === "";
    return (empty ? 1 : sign) * compare(value(a), value(b));
  });
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  table.tBodies[0].append(...rows);
}

for (const button of document.querySelectorAll(".cells th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
// Paper is narrower than the screen: the charts are laid out again for it.
window.addEventListener("beforeprint", () => document.querySelectorAll(".chart").forEach((chart) => Plotly.Plots.resize(chart)));
drawCharts();
