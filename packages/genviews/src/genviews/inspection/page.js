// Filter, sort and enlarge. What is chosen stands in the address: report.html#sort=key&qmin=0.2
const form = document.querySelector("#controls");
const list = document.querySelector("#pairs");
const dialog = document.querySelector("#enlarged");
const cards = [...list.children];
const fields = [...form.elements].filter((field) => field.name);
const defaults = Object.fromEntries(fields.map((field) => [field.name, field.value]));
const qualities = JSON.parse(document.querySelector("#qualities")?.textContent ?? "[]");
const folded = new Map(cards.map((card) => [card, card.dataset.key.toLowerCase()]));
let shown = cards;
let opened = null;

const chosen = (name) => form.elements[name]?.value ?? "";
const measure = (card, name) => (name in card.dataset ? Number(card.dataset[name]) : NaN);
const inside = (value, low, high) => (low === "" || value >= Number(low)) && (high === "" || value <= Number(high));

function fits(card) {
  return folded.get(card).includes(chosen("text").trim().toLowerCase())
    && (!chosen("set") || card.dataset.set.split(" ").includes(chosen("set")))
    && (!chosen("generator") || card.dataset.generator === chosen("generator"))
    && inside(measure(card, "strength"), chosen("smin"), chosen("smax"))
    && inside(measure(card, "quality"), chosen("qmin"), chosen("qmax"));
}

function compare(sort) {
  const name = sort.replace("-", "");
  const turn = sort.startsWith("-") ? -1 : 1;
  const order = (one, two) => measure(one, "order") - measure(two, "order");
  if (name === "key") {
    return (one, two) => (one.dataset.key < two.dataset.key ? -1 : one.dataset.key > two.dataset.key ? 1 : order(one, two));
  }
  return (one, two) => {
    const [a, b] = [measure(one, name), measure(two, name)];
    return Number.isNaN(a) - Number.isNaN(b) || turn * (a - b) || order(one, two);
  };
}

function weigh(gamma) {
  const top = gamma * qualities.reduce((most, quality) => Math.max(most, quality), -Infinity);
  const raw = (quality) => Math.exp(gamma * quality - top);
  const total = qualities.reduce((sum, quality) => sum + raw(quality), 0);
  const squares = qualities.reduce((sum, quality) => sum + raw(quality) ** 2, 0);
  for (const card of cards) {
    card.querySelector(".weight span").textContent = (raw(measure(card, "quality")) * qualities.length / total).toFixed(3);
  }
  document.querySelector("#gamma-told").textContent = gamma;
  document.querySelector("#effective").textContent = `${(100 * total ** 2 / squares / qualities.length).toFixed(1)}%`;
}

let weighed = Number(defaults.gamma);
function apply() {
  shown = cards.filter(fits).sort(compare(chosen("sort")));
  const visible = new Set(shown);
  for (const card of cards) card.hidden = !visible.has(card);
  list.append(...shown);
  document.querySelector("#none").hidden = shown.length > 0;
  document.querySelector("#count").textContent =
    `${shown.length === cards.length ? "" : `${shown.length} of `}${cards.length} ${cards.length === 1 ? "pair" : "pairs"}`;
  document.documentElement.dataset.map = chosen("map");
  document.documentElement.style.setProperty("--opacity", chosen("opacity") / 100);
  const gamma = Number(chosen("gamma"));
  if (qualities.length && gamma >= 0 && gamma !== weighed) weigh(weighed = gamma);
}

function readAddress() {
  const hash = location.hash.slice(1);
  const wanted = new URLSearchParams(hash.includes("=") ? hash : "");
  for (const field of fields) {
    field.value = wanted.get(field.name) ?? defaults[field.name];
    if (field.selectedIndex === -1) field.value = defaults[field.name];
  }
  apply();
  const card = cards.find((each) => each.id === wanted.get("pair"));
  if (card) enlarge(card);
  else dialog.close();
}

function writeAddress() {
  const changed = new URLSearchParams();
  for (const field of fields) if (field.value !== defaults[field.name]) changed.set(field.name, field.value);
  if (opened) changed.set("pair", opened.id);
  history.replaceState(null, "", `${location.href.split("#")[0]}${changed.size ? `#${changed}` : ""}`);
}

function enlarge(card) {
  opened = card;
  document.querySelector("#enlarged-key").textContent = card.dataset.key;
  const parts = [".pair", ".score", ".scores", ".facts"].map((part) => card.querySelector(part)?.cloneNode(true));
  const [pair, ...rest] = parts.filter(Boolean);
  const pictures = document.createElement("div");
  pictures.className = "pair";
  pictures.append(...pair.childNodes);
  for (const part of rest) part.hidden = false;
  document.querySelector("#enlarged-pair").replaceChildren(pictures, ...rest);
  for (const [id, step] of [["#before", -1], ["#after", 1]]) document.querySelector(id).disabled = !beside(card, step);
  if (!dialog.open) dialog.showModal();
  writeAddress();
}

function beside(card, step) {
  const place = shown.indexOf(card);
  return place === -1 ? shown[0] : shown[place + step];
}

function turn(step) {
  const card = beside(opened, step);
  if (card) enlarge(card);
}

function step(card, key) {
  const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  beside(card, steps[key])?.querySelector(".pair").focus();
}

document.addEventListener("click", (event) => {
  const wanted = event.target.closest("[data-open]");
  if (wanted) enlarge(document.getElementById(wanted.dataset.open));
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select");
  const card = event.target.closest("#pairs > li");
  if (event.key === "/" && !typing && !dialog.open) form.elements.text.focus();
  else if (event.key === "m" && !typing && form.elements.map) {
    form.elements.map.selectedIndex = (form.elements.map.selectedIndex + 1) % form.elements.map.length;
    apply();
    writeAddress();
  } else if (dialog.open && ["ArrowLeft", "ArrowRight"].includes(event.key)) turn(event.key === "ArrowLeft" ? -1 : 1);
  else if (!dialog.open && card && event.key.startsWith("Arrow")) step(card, event.key);
  else return;
  event.preventDefault();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => { apply(); writeAddress(); });
form.addEventListener("reset", () => setTimeout(() => { apply(); writeAddress(); }));
document.querySelector("#before").addEventListener("click", () => turn(-1));
document.querySelector("#after").addEventListener("click", () => turn(1));
document.querySelector("#close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  const card = opened;
  opened = null;
  writeAddress();
  if (card && !card.hidden) card.querySelector(".pair").focus();
});
addEventListener("hashchange", readAddress);
readAddress();
