(() => {
  const table = document.getElementById("slides");
  if (!table) return;
  const element = id => document.getElementById(id);
  // a slide: what it is found and sorted by, and its rows, which are made where they are first shown
  const slides = [...table.tBodies].map(body => {
    const [orders, keys] = JSON.parse(body.dataset.by);
    return { body, text: body.dataset.text, kinds: body.dataset.kinds, orders, keys };
  });
  const standing = slides.length, rest = element("rows");
  if (rest) for (const [html, text, kinds, [orders, keys]] of JSON.parse(rest.textContent))
    slides.push({ html, text, kinds, orders, keys });
  rest?.remove();
  for (const slide of slides) {
    slide.text = slide.text.toLowerCase();
    slide.kinds = slide.kinds.split(" ");
  }
  const made = slide => {
    if (!slide.body) {
      slide.body = document.createElement("tbody");
      slide.body.innerHTML = slide.html;  // which is as safe as the rows that stand in the page: text in it is escaped
      slide.html = null;
    }
    return slide.body;
  };
  const listed = slides.slice(), collator = new Intl.Collator(undefined, { numeric: true });
  const filter = element("filter"), kind = element("kind"), order = element("order"), shown = element("shown");
  const before = element("before"), after = element("after"), place = element("place"), many = element("many");
  let found = slides, first = 0;
  const show = () => {
    const size = many ? Number(many.value) : standing;
    first = Math.max(0, Math.min(first, found.length - 1));
    const page = found.slice(first, first + size);
    for (const body of [...table.tBodies]) body.remove();
    table.append(...page.map(made));
    shown.textContent = found.length.toLocaleString("en") + " of " + slides.length.toLocaleString("en") + " shown";
    if (!many) return;
    place.textContent = (found.length ? first + 1 : 0) + " to " + (first + page.length) + " of " + found.length;
    before.disabled = first === 0;
    after.disabled = first + size >= found.length;
  };
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = slides.filter(slide =>
      (!kind.value || slide.kinds.includes(kind.value)) && words.every(word => slide.text.includes(word)));
    first = 0;
    show();
  };
  const sort = compare => {
    slides.splice(0, slides.length, ...listed);
    if (compare) slides.sort(compare);
    apply();
  };
  const heads = [...table.tHead.rows[0].cells];
  const unmark = () => heads.forEach(head => head.removeAttribute("aria-sort"));
  for (const tools of document.querySelectorAll(".tools")) tools.hidden = false;
  filter.addEventListener("input", apply);
  kind.addEventListener("change", apply);
  order.addEventListener("change", () => {
    unmark();
    const by = Number(order.value);
    sort(order.value && ((a, b) => b.orders[by] - a.orders[by]));
  });
  many?.addEventListener("change", show);
  before?.addEventListener("click", () => { first -= Number(many.value); show(); });
  after?.addEventListener("click", () => { first += Number(many.value); show(); });
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending" ? 1 : -1;
    unmark();
    order.value = "";
    head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
    const numbers = head.classList.contains("number");
    sort((a, b) => up * (numbers ? a.keys[column] - b.keys[column] : collator.compare(a.keys[column], b.keys[column])));
  }));
  apply();
})();
