// Tables are sorted by their headers, and the list of every result is filtered as one types.

const valueOf = (row, place) => {
  const cell = row.children[place];
  if (cell.matches("th")) return cell.textContent;
  return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
};

for (const table of document.querySelectorAll(".results")) {
  const [head] = table.tHead.rows;
  const body = table.tBodies[0];
  const given = [...body.rows];
  const sortBy = (place) => {
    const header = head.children[place];
    const order = header.ariaSort === "descending" ? "ascending" : header.ariaSort === "ascending" ? null : "descending";
    for (const other of head.children) other.removeAttribute("aria-sort");
    if (order !== null) header.setAttribute("aria-sort", order);
    const sign = order === "descending" ? -1 : 1;
    const rows = order === null ? given : given.toSorted((one, two) => {
      const [first, second] = [valueOf(one, place), valueOf(two, place)];
      if (first === null || second === null) return (first === null) - (second === null);
      return sign * (typeof first === "string" ? first.localeCompare(second, undefined, {numeric: true}) : first - second);
    });
    body.append(...rows);
  };
  [...head.children].forEach((header, place) => {
    header.querySelector("button").addEventListener("click", () => sortBy(place));
  });
}

const find = document.querySelector("#find");
const lines = [...document.querySelectorAll(".lines tbody tr")];
const texts = lines.map((line) => line.textContent.toLowerCase());
find.addEventListener("input", () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  lines.forEach((line, place) => { line.hidden = !words.every((word) => texts[place].includes(word)); });
});
