(() => {
  const table = document.getElementById("slides");
  if (!table) return;
  const tools = document.querySelector(".tools"), shown = document.getElementById("shown");
  const slides = [...table.tBodies];  // one a slide: its row, and its words
  tools.hidden = false;
  const filter = document.getElementById("filter"), kind = document.getElementById("kind");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const slide of slides) {
      const text = slide.dataset.text.toLowerCase();
      const of = !kind.value || slide.dataset.kinds.split(" ").includes(kind.value);
      slide.hidden = !of || !words.every(word => text.includes(word));
      count += !slide.hidden;
    }
    shown.textContent = count + " of " + slides.length + " shown";
  };
  filter.addEventListener("input", apply);
  kind.addEventListener("change", apply);
  apply();
  for (const head of table.tHead.rows[0].cells) {
    const button = head.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = slide => slide.rows[0].cells[head.cellIndex].dataset.sort;
      const order = (a, b) => head.classList.contains("number")
        ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b), undefined, { numeric: true });
      slides.sort((a, b) => up ? order(a, b) : order(b, a));
      table.append(...slides);
    });
  }
})();
