"use strict";
// The fragment of the address (#3) says which step is shown. A picture is kept once, and moves to the step that shows it.

const steps = [...document.querySelectorAll("section")];
const links = [...document.querySelectorAll("nav a")];
const POINT = 4 / 3; // pixels in a point, the unit of the pictures
let stacked = false; // the picture after below the one before, not beside it
let zoom = 0; // 1: as large as it was drawn; 0: as wide as there is room for

const here = () => Math.min(Math.max(parseInt(location.hash.slice(1)) || 0, 0), steps.length - 1);
const view = () => steps[here()].querySelector(".view");

function show() {
  steps.forEach((step, i) => { step.hidden = i !== here() });
  links.forEach((link, i) => {
    if (i === here()) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
  });
  links[here()].scrollIntoView({ block: "nearest" });
  for (const place of steps[here()].querySelectorAll("[data-picture]"))
    place.append(document.getElementById("picture" + place.dataset.picture));
  scrollTo(0, 0);
  resize();
  const box = view(), first = box && box.querySelector(".minigraph-marked");
  if (first) { // bring the first change into view, with what stands before it
    const [at, frame] = [first.getBoundingClientRect(), box.getBoundingClientRect()];
    if (at.bottom > frame.bottom || at.top < frame.top) box.scrollBy(0, at.top - frame.top - 120);
  }
}

function fitting() {
  const pictures = [...view().querySelectorAll("svg")];
  const widths = pictures.map((svg) => svg.viewBox.baseVal.width * POINT);
  const width = stacked ? Math.max(...widths) : widths.reduce((sum, w) => sum + w + 12, 0);
  return Math.min(1, (view().clientWidth - 20) / width);
}

function resize() {
  if (!view()) return;
  view().classList.toggle("stacked", stacked);
  const scale = (zoom || fitting()) * POINT;
  for (const svg of view().querySelectorAll("svg")) {
    svg.setAttribute("width", svg.viewBox.baseVal.width * scale);
    svg.setAttribute("height", svg.viewBox.baseVal.height * scale);
  }
}

// Zoom so that what stands at (x, y) in the view stays there.
function zoomBy(factor, x = view().clientWidth / 2, y = view().clientHeight / 2) {
  const box = view(), before = zoom || fitting();
  zoom = factor ? Math.min(Math.max(before * factor, 0.05), 8) : 0;
  resize();
  const grown = (zoom || fitting()) / before;
  box.scrollTo((box.scrollLeft + x) * grown - x, (box.scrollTop + y) * grown - y);
}

function stack() {
  stacked = !stacked;
  resize();
}

addEventListener("hashchange", show);
addEventListener("resize", resize);

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const next = { ArrowLeft: here() - 1, ArrowRight: here() + 1 }[event.key];
  const factor = { "+": 1.25, "-": 0.8, "0": 0 }[event.key];
  if (next !== undefined && steps[next]) location.hash = next;
  else if (factor !== undefined && view()) zoomBy(factor);
  else if (event.key === "s") stack();
  else return;
  event.preventDefault();
});

document.querySelectorAll("[data-stack]").forEach((button) => button.addEventListener("click", stack));
document.querySelectorAll("[data-factor]").forEach((button) => {
  button.addEventListener("click", () => zoomBy(Number(button.dataset.factor)));
});

document.querySelectorAll(".view").forEach((box) => {
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // without it, the wheel scrolls
    const frame = box.getBoundingClientRect();
    zoomBy(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.clientX - frame.left, event.clientY - frame.top);
    event.preventDefault();
  }, { passive: false });
  box.addEventListener("pointermove", (event) => {
    if (event.buttons === 1 && event.pointerType === "mouse") box.scrollBy(-event.movementX, -event.movementY);
  });
});

show();
