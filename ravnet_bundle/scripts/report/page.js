"use strict";
const figures = Object.fromEntries([...document.querySelectorAll("figure")].map((f) => [f.dataset.plane, f]));
const stock = Object.fromEntries(Object.entries(figures).map(([plane, figure]) =>
  [plane, figure.querySelector("input").dataset.slices.split(" ").map((id) => document.getElementById(id))]));

function show(plane, index) {
  const slices = stock[plane];
  const slice = slices[Math.max(0, Math.min(slices.length - 1, index))];
  figures[plane].querySelector("use").setAttribute("href", "#" + slice.id);
  figures[plane].querySelector("output").textContent = slice.dataset.label;
  figures[plane].querySelector("input").value = slices.indexOf(slice);
  // the dashed lines on the other planes say where this one lies
  for (const line of document.querySelectorAll(`line[data-plane=${plane}]`)) {
    const at = slice.dataset.at;
    line.setAttribute("transform", line.hasAttribute("y2") ? `translate(${at} 0)` : `translate(0 ${at})`);
  }
}

// the slice that is nearest to a place, mm
function nearest(plane, at) {
  const away = stock[plane].map((slice) => Math.abs(slice.dataset.at - at));
  return away.indexOf(Math.min(...away));
}

for (const [plane, figure] of Object.entries(figures)) {
  const [input, svg] = [figure.querySelector("input"), figure.querySelector("svg")];
  const [down, across] = [...svg.querySelectorAll("line")].map((line) => line.dataset.plane);
  let turned = 0;
  input.addEventListener("input", () => show(plane, +input.value));
  svg.addEventListener("click", (event) => {
    const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    show(down, nearest(down, place.x));
    show(across, nearest(across, place.y));
    input.focus({ preventScroll: true });
  });
  // only in the picture that was clicked: elsewhere the wheel scrolls the page
  svg.addEventListener("wheel", (event) => {
    if (document.activeElement !== input || event.ctrlKey) return;
    event.preventDefault();
    turned += event.deltaY;
    if (Math.abs(turned) < 25) return; // a touchpad sends many small turns
    show(plane, +input.value + Math.sign(turned));
    turned = 0;
  }, { passive: false });
  show(plane, +input.value);
}
for (const button of document.querySelectorAll(".levels button")) {
  button.addEventListener("click", () => show("axial", nearest("axial", +button.dataset.at)));
}
document.getElementById("contours").addEventListener("change", (event) =>
  document.body.classList.toggle("bare", !event.target.checked));
