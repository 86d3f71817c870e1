"use strict";
document.documentElement.classList.add("js");
const viewer = document.getElementById("viewer");
const which = document.getElementById("which");
const cut = document.getElementById("cut");
const figures = [...viewer.querySelectorAll("figure")];

function show() {
  const layer = viewer.querySelector("input[name=layer]:checked");
  figures.forEach((figure, number) => figure.classList.toggle("shown", number === which.selectedIndex));
  viewer.querySelectorAll(".layer").forEach((layerElement) => layerElement.classList.toggle("over", layerElement.dataset.layer === layer.value));
  viewer.style.setProperty("--cut", `${cut.value}%`);
  const over = layer.parentElement.textContent.trim();
  document.getElementById("over").value = over;
  document.getElementById("legend").hidden = over !== "differences";
}

function step(offset) {
  which.selectedIndex = (which.selectedIndex + offset + figures.length) % figures.length;
  show();
}

function drag(event) {
  if (event.buttons !== 1) return;
  const frame = event.currentTarget.getBoundingClientRect();
  cut.value = 100 * (event.clientX - frame.left) / frame.width;
  show();
}

document.getElementById("before").addEventListener("click", () => step(-1));
document.getElementById("after").addEventListener("click", () => step(1));
viewer.addEventListener("input", show);
viewer.querySelectorAll(".frame").forEach((frame) => {
  frame.addEventListener("pointerdown", drag);
  frame.addEventListener("pointermove", drag);
  frame.addEventListener("dragstart", (event) => event.preventDefault());
});
show();
