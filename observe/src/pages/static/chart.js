// Shows in a chart's legend the values under the pointer. Everything is read from the drawing itself.
"use strict";

function number(element, name) {
  return Number(element.dataset[name]);
}

function readable(value) {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

// The value of a line at `x`, from its path; a gap has none.
function valueAt(chart, line, x) {
  let best = null;
  for (const [, px, py] of line.getAttribute("d").matchAll(/[ML]([\d.]+) ([\d.-]+)/g)) {
    const distance = Math.abs(px - x);
    if (!best || distance < best.distance) best = { distance, x: Number(px), y: Number(py) };
  }
  if (!best || best.distance > 12) return null;
  const share = (number(chart, "bottom") - best.y) / (number(chart, "bottom") - number(chart, "top"));
  return { x: best.x, value: number(chart, "low") + share * (number(chart, "high") - number(chart, "low")) };
}

function point(event) {
  const chart = event.target.closest?.(".chart svg");
  if (!chart) return;
  const box = chart.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
  const figure = chart.closest(".chart");
  let at = null;
  chart.querySelectorAll("path.line").forEach((line, index) => {
    const found = valueAt(chart, line, x);
    const last = figure.querySelectorAll(".legend .last")[index];
    if (!last) return;
    last.dataset.latest ??= last.textContent;
    last.textContent = found ? `${readable(found.value)} ${chart.dataset.unit}` : "–";
    at ??= found?.x;
  });
  const cursor = chart.querySelector(".cursor");
  cursor?.setAttribute("d", at == null ? "" : `M${at} ${number(chart, "top")}V${number(chart, "bottom")}`);
}

function leave(event) {
  const figure = event.target.closest?.(".chart");
  if (!figure || figure.contains(event.relatedTarget)) return;
  figure.querySelector(".cursor")?.setAttribute("d", "");
  for (const last of figure.querySelectorAll(".last[data-latest]")) {
    last.textContent = last.dataset.latest;
    delete last.dataset.latest;
  }
}

document.addEventListener("pointermove", point);
document.addEventListener("pointerout", leave);
