// Reading more of a slide: choose a place, ask the server for it, show how the prediction has moved.
const readMore = ({ data, at, model, told, at_event, in_view }) => {
  const [fx, fy, width, height] = data.frame;
  const own = { ...Object.fromEntries(["patches", "gallery", "told", "unit"].map(name => [name, data[name]])), columns: model("samples")?.data, maps: [] };
  const places = model("places-source"), chosen = model("chosen-source");
  const squares = boxes => ({
    left: boxes.map(b => b[0] * fx), right: boxes.map(b => (b[0] + b[2]) * fx),
    top: boxes.map(b => -b[1] * fy), bottom: boxes.map(b => -(b[1] + b[3]) * fy),
  });

  // -- the place
  let box = null, first = null, shown = 0;
  const size = length => data.mpp === null ? `${Math.round(length)} px`
    : length * data.mpp[0] >= 1000 ? `${(length * data.mpp[0] / 1000).toPrecision(3)} mm` : `${(length * data.mpp[0]).toPrecision(3)} µm`;
  const choose = (x0, y0, x1, y1) => {
    const clip = (value, most) => Math.min(most, Math.max(0, value));
    const [left, right] = [clip(Math.min(x0, x1), width), clip(Math.max(x0, x1), width)];
    const [upper, lower] = [clip(Math.min(y0, y1), height), clip(Math.max(y0, y1), height)];
    box = right > left && lower > upper ? [left, upper, right - left, lower - upper] : null;
    chosen.data = squares(box ? [box] : []);
    at("asked").textContent = box ? `${size(box[2])} × ${size(box[3] * (data.mpp ? data.mpp[1] / data.mpp[0] : 1))} chosen` : "Nothing of the slide is chosen";
    at("read").disabled = box === null;
  };
  const drawing = at("drawing");
  const drawn = on => {
    drawing.hidden = !on;
    at("draw").setAttribute("aria-pressed", on);
    first = null;
  };
  drawing.addEventListener("pointerdown", event => {
    drawing.setPointerCapture(event.pointerId);
    first = at_event(event);
  });
  drawing.addEventListener("pointermove", event => { if (first) choose(...first, ...at_event(event)); });
  drawing.addEventListener("pointerup", event => {
    if (!first) return;
    choose(...first, ...at_event(event));
    drawn(false);
  });
  const draw = () => { if (!at("asking").hidden) drawn(drawing.hidden); };
  const view = () => { if (!at("asking").hidden) choose(...in_view()); };

  // -- the server
  const ask = async (method, body) => {
    const address = `${data.more}?of=${data.of}&shown=${shown}`;
    const head = body ? { "Content-Type": "application/json" } : {};
    const answer = await fetch(address, { method, headers: head, body: body && JSON.stringify(body), cache: "no-store" });
    return { status: answer.status, told: answer.headers.get("Content-Type")?.startsWith("application/json") ? await answer.json() : {} };
  };
  const fail = words => {
    at("failed").hidden = !words;
    at("failed").textContent = words;
  };
  const put = state => {
    at("more").hidden = false;
    at("why").hidden = !state.why;
    at("why").textContent = state.why ?? "";
    at("keys-more").hidden = Boolean(state.why);
    const going = state.job !== null && !state.job.error;
    at("asking").hidden = Boolean(state.why) || going;
    at("going").hidden = !going;
    if (going) {
      drawn(false);
      const { own: mine, name, doing, done, total } = state.job;
      at("doing").textContent = `${mine ? "" : `${name}: `}${doing}${total ? ` ${done} of ${total} patches` : ""}`;
      at("end").hidden = !mine;
      if (total) Object.assign(at("done"), { max: total, value: done }); else at("done").removeAttribute("value");
    }
    fail(state.job?.own && state.job.error ? state.job.error : "");
    at("most").max = state.most;
    if (!at("most").value) at("most").value = state.usual;
    at("forget").hidden = !state.found || going;
    const times = state.found?.times ?? 0;
    if (times === shown) return;
    shown = times;
    at("found").innerHTML = state.found?.html ?? "";  // of the server's making, whose texts are escaped
    places.data = squares(state.found?.boxes ?? []);
    choose(0, 0, 0, 0);
    at("asked").textContent = "";
    told(state.found ?? own);
  };
  const follow = async () => {
    try {
      for (;;) {
        const { status, told: state } = await ask("GET");
        if (status !== 200) return fail("The server does not answer as it should: load the page again.");
        put(state);
        if (state.job === null || state.job.error) return;
        await new Promise(go => setTimeout(go, 300));
      }
    } catch {
      fail("The server does not answer: is `saccade view` still running?");
    }
  };
  const act = async (method, body) => {
    try {
      const { status, told: state } = await ask(method, body);
      if (status >= 400) return fail(state.error ?? "The server refused it.");
    } catch { /* told by what follows */ }
    await follow();
  };
  at("draw").addEventListener("click", draw);
  at("view").addEventListener("click", view);
  at("read").addEventListener("click", () => {
    const most = Math.round(Number(at("most").value));
    if (!(most >= 1 && most <= Number(at("most").max))) return fail(`Give a number of patches from 1 to ${at("most").max}.`);
    act("POST", { box, most });
  });
  at("end").addEventListener("click", () => act("DELETE"));
  at("forget").addEventListener("click", () => act("DELETE"));
  follow();
  return { draw, view, put_away: () => drawn(false) };
};
