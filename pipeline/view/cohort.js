// The page of all slides: sort, cut down, and remember the order for the pages of slides.
(() => {
  const table = document.getElementById("slides"), body = table.tBodies[0], rows = [...body.rows];
  const at = id => document.getElementById(id);
  const find = at("find"), kind = at("kind"), label = at("class"), sure = at("sure"), shown = at("shown");
  const keep = () => {
    try {
      const left = [...body.rows].filter(row => !row.hidden && row.dataset.number !== "").map(row => Number(row.dataset.number));
      sessionStorage.setItem("saccade-order", JSON.stringify(left));
    } catch { /* a page that may keep nothing goes by the table's own order */ }
  };
  const doubtful = row => {
    const [side, limit] = (sure?.value || "").split(" ");
    if (!side) return true;
    const value = side === "below" ? row.dataset.chance : row.dataset.width;
    return value !== "" && (side === "below" ? Number(value) < Number(limit) : Number(value) > Number(limit));
  };
  const cut = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.dataset.text.toLowerCase();
      row.hidden = !(words.every(word => text.includes(word))
        && (!kind?.value || row.dataset.kinds.split(" ").includes(kind.value))
        && (!label?.value || row.dataset.class === label.value)
        && doubtful(row));
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${rows.length} shown`;
    keep();
  };
  const heads = [...table.tHead.rows[0].cells];
  const put = order => {
    rows.sort(order);
    body.append(...rows);
    keep();
  };
  for (const head of heads) {
    head.querySelector("button")?.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = row => row.cells[head.cellIndex].dataset.sort;
      const order = (a, b) => head.classList.contains("number")
        ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b), undefined, { numeric: true });
      put((a, b) => up ? order(a, b) : order(b, a));
    });
  }
  at("errors").addEventListener("click", () => {
    for (const head of heads) head.removeAttribute("aria-sort");
    put((a, b) => Number(b.dataset.rank) - Number(a.dataset.rank));
  });
  for (const control of [find, kind, label, sure]) control?.addEventListener("input", cut);
  cut();
  document.body.dataset.ready = "yes";
})();
