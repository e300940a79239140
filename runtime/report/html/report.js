"use strict";

function drawCharts() {
  for (const figure of document.querySelectorAll(".plot")) {
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const options = { responsive: true, displaylogo: false, displayModeBar: false };
    const chart = figure.querySelector(".chart");
    Plotly.newPlot(chart, data, layout, options);
    chart.on("plotly_afterplot", () => hideCoveredLabels(chart));
    hideCoveredLabels(chart);
  }
}

// Labels are laid out for a chart as wide as on a desktop. In a narrower one, a label that would cover another, a point of
// another cell, or the edge is hidden: the legend still names its colour, and the pointer its cell.
function hideCoveredLabels(chart) {
  const edge = chart.getBoundingClientRect();
  const points = [...chart.querySelectorAll(".scatterlayer .trace")].map((trace) => [trace, trace.querySelector(".point")]);
  const kept = [];
  for (const label of chart.querySelectorAll(".scatterlayer .textpoint text")) {
    const box = label.getBoundingClientRect();
    const meets = (other) => box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom;
    const own = label.closest(".trace");
    const covers = points.some(([trace, point]) => point && trace !== own && meets(point.getBoundingClientRect()));
    const hidden = covers || kept.some(meets) || box.right > edge.right || box.left < edge.left;
    label.style.visibility = hidden ? "hidden" : "";
    if (!hidden) kept.push(box);
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
  const inOrder = (a, b) => (value(a) === "" || value(b) === "" ? 1 : sign) * compare(value(a), value(b));
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  // Each group of rows is sorted by itself, below its heading: rows of different groups are not comparable.
  for (const body of table.tBodies) body.append(...[...body.querySelectorAll("tr:not(.group)")].sort(inOrder));
}

for (const button of document.querySelectorAll(".cells th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}
// While a page is prepared for paper it still has the width of the screen: a class gives it that of paper, so that the charts,
// which are drawn for a number of pixels, can be drawn for it. Plots.resize would come too late, since it waits for a timer.
function fitCharts(paper) {
  document.body.classList.toggle("paper", paper);
  for (const chart of document.querySelectorAll(".chart")) Plotly.relayout(chart, paper ? { width: chart.clientWidth } : { width: null, autosize: true });
}

window.addEventListener("beforeprint", () => fitCharts(true));
window.addEventListener("afterprint", () => fitCharts(false));
drawCharts();
