const points = JSON.parse(document.getElementById("points").textContent);
const canvas = document.querySelector("canvas"), tip = document.querySelector(".tip");
const pen = canvas.getContext("2d");
const groups = [...new Set(points.map((point) => point.group))].sort();
const dark = matchMedia("(prefers-color-scheme: dark)");
const chosen = new Set();
let view = { zoom: 1, x: 0, y: 0 }, near = null, held = null;

// The golden angle keeps the hues of neighbours in the list apart.
const colour = (group) => groups.length < 2 ? (dark.matches ? "#7fabff" : "#2b66d1")
  : `hsl(${(groups.indexOf(group) * 137.5 + 215) % 360} 65% ${dark.matches ? 66 : 44}%)`;

function place(point) {
  const margin = 24, width = canvas.clientWidth, height = canvas.clientHeight;
  return [
    (margin + point.x * (width - 2 * margin)) * view.zoom + view.x,
    (margin + point.y * (height - 2 * margin)) * view.zoom + view.y,
  ];
}

function dot(point, radius) {
  const [x, y] = place(point);
  pen.fillStyle = colour(point.group);
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
}

function draw() {
  const scale = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  const radius = Math.min(7, (points.length > 800 ? 3 : 4.5) * Math.sqrt(view.zoom));
  for (const point of points) {
    pen.globalAlpha = !chosen.size || chosen.has(point.group) ? .8 : .1;
    dot(point, radius);
  }
  pen.globalAlpha = 1;
  if (near) dot(near, radius + 3);
}

function show(point) {
  near = point;
  tip.hidden = !point;
  if (point) {
    const [x, y] = place(point);
    tip.querySelector("img").hidden = !point.src;
    if (point.src) tip.querySelector("img").src = point.src;
    tip.querySelector("figcaption").textContent = point.key;
    tip.style.left = `${x > canvas.clientWidth / 2 ? x - tip.offsetWidth - 12 : x + 12}px`;
    tip.style.top = `${Math.max(4, Math.min(y - 40, canvas.clientHeight - tip.offsetHeight - 4))}px`;
  }
  draw();
}

function nearest(left, top) {
  let best = null, least = 18 ** 2;
  for (const point of points) {
    if (chosen.size && !chosen.has(point.group)) continue;
    const [x, y] = place(point), distance = (x - left) ** 2 + (y - top) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

canvas.addEventListener("pointermove", (event) => {
  if (held) {
    view.x += event.offsetX - held[0];
    view.y += event.offsetY - held[1];
    held = [event.offsetX, event.offsetY];
  }
  show(held ? null : nearest(event.offsetX, event.offsetY));
});
canvas.addEventListener("pointerdown", (event) => {
  show(nearest(event.offsetX, event.offsetY));
  held = [event.offsetX, event.offsetY];
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointerup", () => { held = null; });
canvas.addEventListener("pointerleave", () => show(null));
canvas.addEventListener("dblclick", () => { view = { zoom: 1, x: 0, y: 0 }; draw(); });
canvas.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  show(points[(points.indexOf(near) + step + points.length) % points.length]);
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const zoom = Math.min(40, Math.max(1, view.zoom * Math.exp(-event.deltaY / 400))), ratio = zoom / view.zoom;
  view = zoom === 1 ? { zoom, x: 0, y: 0 }
    : { zoom, x: event.offsetX - (event.offsetX - view.x) * ratio, y: event.offsetY - (event.offsetY - view.y) * ratio };
  draw();
}, { passive: false });

const buttons = [...document.querySelectorAll("[data-group]")];
function paint() {
  for (const button of buttons) button.style.setProperty("--own", colour(button.dataset.group));
  draw();
}
for (const button of buttons) {
  button.addEventListener("click", () => {
    const group = button.dataset.group;
    if (!chosen.delete(group)) chosen.add(group);
    button.setAttribute("aria-pressed", chosen.has(group));
    draw();
  });
}
dark.addEventListener("change", paint);
new ResizeObserver(draw).observe(canvas);
paint();
