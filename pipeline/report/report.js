(() => {
  const table = document.getElementById("slides");
  if (!table) return;
  const body = table.tBodies[0], tools = document.querySelector(".tools"), shown = document.getElementById("shown");
  tools.hidden = false;
  const filter = document.getElementById("filter");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = row.dataset.text.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      count += !row.hidden;
    }
    shown.textContent = count + " of " + body.rows.length + " shown";
  };
  filter.addEventListener("input", apply);
  apply();
  for (const head of table.tHead.rows[0].cells) {
    const button = head.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = row => row.cells[head.cellIndex].dataset.sort;
      const order = (a, b) => head.classList.contains("number")
        ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b), undefined, { numeric: true });
      body.append(...[...body.rows].sort((a, b) => up ? order(a, b) : order(b, a)));
    });
  }
})();
