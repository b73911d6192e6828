// The page of a slide: what its controls, keys and patches do to the Bokeh figure.
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = id => document.getElementById(id);
  const [fx, fy, width, height] = data.frame;
  const unit = data.mpp ? Math.max(...data.mpp) : null;  // µm of a unit of the screen

  // -- from slide to slide, in the order in which the table of all slides was left
  let order = data.slides;
  try {
    const left = JSON.parse(sessionStorage.getItem("saccade-order") || "[]").filter(n => data.slides.includes(n));
    if (left.includes(data.number)) order = left;
  } catch { /* where a page may keep nothing, the table's own order */ }
  const place = order.indexOf(data.number);
  const go = step => {
    const number = order[place + step];
    if (number !== undefined) location.href = data.address.replace("{}", number);
  };
  at("place").textContent = `${place + 1} of ${order.length}`;
  at("previous").disabled = place <= 0;
  at("next").disabled = place >= order.length - 1;
  at("previous").addEventListener("click", () => go(-1));
  at("next").addEventListener("click", () => go(1));

  document.querySelector(".stage").style.background = `rgb(${data.background})`;

  await Bokeh.embed.embed_item(data.figure);
  const found = Bokeh.documents[0];
  const model = name => found.get_model_by_name(name);
  const other = data.beside;  // what another run found of the slide
  if (other) await Bokeh.embed.embed_item(other.figure);
  const beside = other ? Bokeh.documents[1] : null;
  data.model = model;
  if (other) other.model = name => beside.get_model_by_name(name);
  const panes = other ? [other, data] : [data];  // its own last, whose colours the legend shows
  const each_model = (name, act) => panes.forEach(pane => { if (pane.model(name)) act(pane.model(name)); });
  const plot = model("plot"), source = model("samples");
  const { x_range, y_range } = plot;

  // -- where the screen is
  const size = () => [plot.inner_width || 1, plot.inner_height || 1];
  const show = (u, v, each) => {  // the middle, and units of a screen pixel
    const [w, h] = size();
    x_range.setv({ start: u - w * each / 2, end: u + w * each / 2 });
    y_range.setv({ start: v - h * each / 2, end: v + h * each / 2 });
  };
  const middle = () => [(x_range.start + x_range.end) / 2, (y_range.start + y_range.end) / 2];
  const each = () => (x_range.end - x_range.start) / size()[0];
  const fit = () => {
    const [w, h] = size();
    show(width * fx / 2, -height * fy / 2, 1.04 * Math.max(width * fx / w, height * fy / h));
  };
  const finest = 1 / 8;
  const zoom = factor => show(...middle(), Math.max(each() * factor, finest));
  const full = () => show(...middle(), 1 / (window.devicePixelRatio || 1));

  const nice = value => {
    const power = 10 ** Math.floor(Math.log10(value));
    return [5, 2, 1].map(k => k * power).find(k => k <= value);
  };
    const moved = () => {
    const scale = each(), bar = at("scale");
    const length = nice(160 * scale * (unit ?? 1));
    bar.style.width = `${length / (scale * (unit ?? 1))}px`;
    bar.textContent = unit === null ? `${length} px` : length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
    for (const pane of panes) {  // where the boxes are not seen themselves
      if (pane.model("marks") && pane.patches.length) {
        pane.model("marks").visible = pane.model("patches").visible && pane.patches[0].box[2] * fx / scale < 10;
      }
    }
  };
  x_range.change.connect(moved);
  if (other) {  // both show the same place
    const ranges = [[x_range, y_range], ["x_range", "y_range"].map(name => beside.get_model_by_name("plot")[name])];
    ranges.forEach((own, i) => own.forEach((range, axis) => range.change.connect(() => {
      const { start, end } = range, there = ranges[1 - i][axis];
      if (there.start !== start || there.end !== end) there.setv({ start, end });
    })));
  }
  let last = null, held = null, waits = false;
  const same = (one, other) => other !== null && one[0] === other[0] && one[1] === other[1];
  const hold = () => {  // Bokeh scales the ranges where the size changes, to nothing where there was none
    const now = [...middle(), each()];
    if (same(size(), last) && now.every(Number.isFinite)) held = now;
  };
  x_range.change.connect(hold);
  y_range.change.connect(hold);
  const settled = () => {
    const now = size();
    if (now[0] < 2 || now[1] < 2 || same(now, last)) return;
    const before = held;
    last = now;
    if (before === null) fit(); else show(...before);
    hold();
    moved();
  };
  const resized = () => {  // once both sides are known: what is set in between would be of neither
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      settled();
    });
  };
  plot.properties.inner_width.change.connect(resized);
  plot.properties.inner_height.change.connect(resized);
  settled();
  const figure = at("figure");
  figure.addEventListener("pointermove", event => {
    const box = figure.getBoundingClientRect(), scale = each();
    const x = (x_range.start + (event.clientX - box.left) * scale) / fx;
    const y = (-y_range.end + (event.clientY - box.top) * scale) / fy;
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    const said = unit === null ? "" : ` · ${(scale * unit).toPrecision(3)} µm per screen pixel`;
    at("where").textContent = inside ? `x ${Math.floor(x)}, y ${Math.floor(y)}${said}` : "";
  });

  // -- maps: one of 256 colours a cell, so that opacity and threshold are another list of colours
  const own = data.layers.map(({ name, title, ticks }) => ({ name, title, ticks, steps: null }));  // as the run has them
  const pixels = name => model(name).data_source.data.image[0];
  const redraw = maps => {  // others by now; all that are not named are the run's
    for (const layer of own) {
      const now = maps.find(map => map.name === layer.name) ?? layer;
      if (now !== layer && layer.steps === null) layer.steps = Uint8Array.from(pixels(layer.name));
      if (layer.steps === null) continue;
      pixels(layer.name).set(now === layer ? layer.steps : Uint8Array.from(atob(now.steps), one => one.charCodeAt(0)));
      model(layer.name).data_source.change.emit();
      const { title, ticks } = now;
      Object.assign(data.layers.find(one => one.name === layer.name), { title, ticks });
    }
    if (data.layers.length) paint();
  };
  const opacity = at("opacity"), threshold = at("threshold");
  let chosen = data.layers.length ? 0 : null, on = true;
  const strength = (layer, step) => layer.signed ? 2 * Math.abs(step - 128) : step;
  const hex = value => Math.round(Math.min(255, Math.max(0, value))).toString(16).padStart(2, "0");
  const paint = () => {
    const shown = on ? data.layers[chosen].name : null;
    for (const pane of panes) {
      for (const layer of pane.layers) {
        pane.model(layer.name).visible = layer.name === shown;
        if (layer.name === data.layers[chosen].name) colour(layer, pane.model(`${layer.name}-colours`));
      }
    }
  };
  const colour = (layer, mapper) => {
    const alpha = layer.colours.map((colour, step) =>
      strength(layer, step) < Number(threshold.value) ? 0 : colour[3] * opacity.value / 100);
    const palette = layer.colours.map(([r, g, b], step) => `#${hex(r)}${hex(g)}${hex(b)}${hex(255 * alpha[step])}`);
    mapper.palette = palette;
    const pen = at("colours").getContext("2d");
    pen.clearRect(0, 0, 256, 12);
    palette.forEach((colour, step) => { pen.fillStyle = colour; pen.fillRect(step, 0, 1, 12); });
    at("ticks").replaceChildren(...layer.ticks.map(([step, words]) => {
      const tick = document.createElement("span");
      tick.textContent = words;
      tick.style.left = `${100 * step / 255}%`;
      return tick;
    }));
    at("legend").textContent = `${layer.title}; ${other ? "one scale for both runs" : "this slide's own scale"}`;
  };
  const choices = [...data.layers.map(layer => layer.label), "none"].map((name, i) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "layer", value: name, checked: i === (chosen ?? 0) });
    input.addEventListener("change", () => {
      on = i < data.layers.length;
      if (on) chosen = i;
      paint();
    });
    label.append(input, ` ${name}`);
    at("choice").append(label);
    return input;
  });
  const choose = (layer, shown) => {
    if (!data.layers.length) return;
    chosen = layer;
    on = shown;
    choices[on ? chosen : choices.length - 1].checked = true;
    paint();
  };
  opacity.addEventListener("input", paint);
  threshold.addEventListener("input", paint);
  if (data.layers.length) paint(); else at("overlay").classList.add("bare");
  const outlines = model("outlines");
  at("outlined").hidden = !outlines;
  at("outlines").addEventListener("change", () => each_model("outlines", one => { one.visible = at("outlines").checked; }));
  at("boxes").addEventListener("change", () => {
    for (const name of ["patches", "marks"]) each_model(name, one => { one.visible = at("boxes").checked; });
    moved();
  });
  at("of")?.addEventListener("change", event => { location.search = `?of=${event.target.value}`; });

  // -- patches
  const signed = value => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  const words_of = patch => signed(patch.contribution) + (patch.half === null ? "" : ` ± ${patch.half.toFixed(2)}`);
  const fact = (name, value) => {
    const term = document.createElement("dt"), words = document.createElement("dd");
    term.textContent = name;
    words.textContent = value;
    return [term, words];
  };
  const open = (number, pane) => {
    const patch = pane.patches[number], box = patch.box;
    at("whose").textContent = pane === data ? "Patch" : "Patch of the other run";
    at("patch").hidden = false;
    at("picture").hidden = at("enlarge").hidden = !patch.picture;
    if (patch.picture) {
      at("picture").src = patch.picture;
      at("enlarge").href = patch.picture;
    }
    const facts = [
      ["attention", `${patch.attention.toPrecision(3)}${patch.times === null ? "" : `, ${patch.times.toPrecision(3)}× even`}`],
      ["weight", patch.weight.toPrecision(3)],
      ["stands for", `${(100 * patch.weight * patch.attention).toPrecision(3)} % of the estimate`],
    ];
    if (patch.contribution !== null) facts.push([`for ${pane.told}`, `${words_of(patch)} ${pane.unit}`]);
    facts.push(["level 0", `x ${Math.round(box[0])}, y ${Math.round(box[1])}, ${Math.round(box[2])} × ${Math.round(box[3])} px`]);
    if (data.mpp) facts.push(["size", `${(box[2] * data.mpp[0]).toPrecision(3)} × ${(box[3] * data.mpp[1]).toPrecision(3)} µm`]);
    at("facts").replaceChildren(...facts.flatMap(one => fact(...one)));
  };
  const close = () => {
    more?.put_away();
    at("patch").hidden = true;
    each_model("samples", one => { one.selected.indices = []; });
  };
  const visit = number => {
    const [x, y, w, h] = data.patches[number].box, [across, down] = size();
    show((x + w / 2) * fx, -(y + h / 2) * fy, Math.max(3 * w * fx / across, 3 * h * fy / down, finest));
    source.selected.indices = [number];
  };
  for (const pane of panes) {
    pane.model("samples")?.selected.properties.indices.change.connect(() => {
      const [number] = pane.model("samples").selected.indices;
      const others = panes.filter(one => one !== pane && one.model("samples")?.selected.indices.length);
      if (number !== undefined) {
        open(number, pane);
        for (const one of others) one.model("samples").selected.indices = [];
      } else if (!others.length) at("patch").hidden = true;
    });
  }
  at("close").addEventListener("click", close);
  const fill = () => {
    at("gallery").replaceChildren();
    data.gallery.forEach(fillRow);
  };
  const fillRow = (numbers, row) => {
    if (!numbers.length) return;
    const head = document.createElement("h2"), list = document.createElement("div");
    head.textContent = `${row ? "Against" : "For"} ${data.told}`;
    list.className = `patches ${row ? "against" : "for"}`;
    for (const number of numbers) {
      const patch = data.patches[number], button = document.createElement("button"), words = document.createElement("span");
      button.type = "button";
      button.title = "go there";
      if (patch.picture) {
        const picture = document.createElement("img");
        Object.assign(picture, { src: patch.picture, loading: "lazy", alt: "" });
        button.append(picture);
      }
      words.textContent = words_of(patch);
      button.append(words);
      button.addEventListener("click", () => visit(number));
      list.append(button);
    }
    at("gallery").append(head, list);
  };
  fill();
  const told_now = told => {  // other patches than before, as the page's own are told
    close();
    for (const name of ["patches", "gallery", "told", "unit"]) data[name] = told[name];
    if (source) source.data = told.columns;
    redraw(told.maps);
    fill();
    moved();
  };
  const step = by => {
    if (!data.patches.length) return;
    const [now] = source.selected.indices, many = data.patches.length;
    visit(now === undefined ? (by > 0 ? 0 : many - 1) : (now + by + many) % many);
  };

  const more = data.more ? readMore({
    data, at, model, told: told_now,
    at_event: event => {
      const box = figure.getBoundingClientRect(), scale = each();
      return [(x_range.start + (event.clientX - box.left) * scale) / fx, (-y_range.end + (event.clientY - box.top) * scale) / fy];
    },
    in_view: () => [x_range.start / fx, -y_range.end / fy, x_range.end / fx, -y_range.start / fy],
  }) : null;

  // -- buttons and keys
  for (const [id, act] of Object.entries({ in: () => zoom(0.5), out: () => zoom(2), fit, full })) {
    at(id).addEventListener("click", act);
  }
  const keys = {
    n: () => go(1), p: () => go(-1), u: () => document.querySelector(".back").click(),
    o: () => choose(chosen, !on), e: () => choose((chosen + 1) % data.layers.length, true),
    b: () => at("boxes").click(), r: () => more?.draw(), v: () => more?.view(), "]": () => step(1), "[": () => step(-1), Escape: close,
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: fit, 1: full,
  };
  at("keys-slides").hidden = order.length < 2;
  at("keys-maps").hidden = !data.layers.length;
  at("keys-patches").hidden = !data.patches.length;
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type=range]):not([type=radio]):not([type=checkbox])")) return;
    const act = keys[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });
  setTimeout(() => at("first")?.remove(), 1500);  // by then the figure shows what it does
  x_range.change.connect(() => at("first")?.remove());
  document.body.dataset.ready = "yes";
})();
