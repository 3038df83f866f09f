// Every chart of the dashboard and of the reports. Data in, one Plotly figure out; colours come from style.css.
"use strict";
const Charts = (() => {
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const narrow = () => innerWidth < 700;
  const drawn = new Map(); // element -> function that draws it again

  function layout(extra) {
    const axis = { gridcolor: color("line"), linecolor: color("line"), zerolinecolor: color("line"), ticks: "", automargin: true };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif", size: 12.5, color: color("ink") },
      margin: { l: 58, r: 16, t: 12, b: 46 }, hovermode: "closest", dragmode: narrow() ? false : "zoom",
      hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink") } },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 12 }, bgcolor: "rgba(0,0,0,0)" },
    };
    const merged = { ...base, ...extra };
    for (const key of Object.keys(merged)) if (/^[xy]axis\d*$/.test(key)) merged[key] = { ...axis, ...merged[key] };
    return merged;
  }

  function show(element, traces, extra) {
    element.classList.remove("waiting", "nothing");
    if (!element.classList.contains("js-plotly-plot")) element.textContent = "";
    return Plotly.react(element, traces, layout(extra), { displayModeBar: false, responsive: true });
  }

  // Draw now, and again when the theme changes.
  function draw(element, make) {
    if (!element) return;
    drawn.set(element, make);
    make();
  }
  document.addEventListener("themechange", () => { if (window.Plotly) for (const make of drawn.values()) make(); });

  const title = (text) => ({ title: { text, standoff: 8, font: { size: 12.5, color: color("quiet") } } });
  const us = (value) => value == null ? "–" : value < 1000 ? `${value.toPrecision(4)} µs` : value < 1e6 ? `${(value / 1000).toPrecision(4)} ms` : `${(value / 1e6).toPrecision(4)} s`;

  // Times are kept in microseconds and shown in the unit that suits their size.
  const unitOf = (low) => low >= 1e6 ? { name: "s", size: 1e6 } : low >= 1000 ? { name: "ms", size: 1000 } : { name: "µs", size: 1 };
  const backend = (name) => name === "torch" ? "PyTorch" : `PyTorch ${esc(name)}`;

  // Kernel times on a log axis: readable ticks within the range shown.
  function timeAxis(low, high, extra = {}) {
    let ticks = [];
    if (high / low < 6) {
      const rough = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(rough || 1));
      const step = [1, 2, 2.5, 5, 10].map((s) => s * unit).find((s) => s >= rough) || rough || 1;
      for (let tick = Math.ceil(low * 0.97 / step) * step; tick <= high * 1.04; tick += step) ticks.push(tick);
    } else {
      const wide = high / low < (narrow() ? 20 : 80) ? [1, 2, 3, 5, 7] : high / low < (narrow() ? 100 : 2000) ? [1, 2, 5] : [1];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
        for (const step of wide) ticks.push(step * 10 ** power);
      ticks = ticks.filter((tick) => tick >= low * 0.97 && tick <= high * 1.04);
    }
    const shown = ticks.length >= 2 ? ticks : [low, high];
    return { type: "log", range: [Math.log10(low * 0.97), Math.log10(high * 1.04)], tickvals: shown, ticktext: shown.map((t) => Number((t / unitOf(low).size).toPrecision(3)).toLocaleString("en")), ...extra };
  }

  function bestSoFar(x, times, end) {
    const xs = [], ys = [];
    times.forEach((time, index) => {
      if (time != null && (ys.length === 0 || time < ys[ys.length - 1])) { xs.push(x[index]); ys.push(time); }
    });
    if (xs.length && end > xs[xs.length - 1]) { xs.push(end); ys.push(ys[ys.length - 1]); }
    return [xs, ys];
  }

  const STAGES = ["rules", "build", "gates", "launch", "verify", "measure", "timeout", "crash"];

  // Best so far, every trial, baselines, random expectation; rejected trials as ticks on a row per stage below.
  function progress(element, table, facts, axis) {
    const x = axis === "seconds" ? table.seconds : table.position;
    const end = x.length ? x[x.length - 1] : 1;
    const measured = [], traces = [];
    table.time_us.forEach((time, index) => { if (time != null) measured.push(index); });
    const times = measured.map((index) => table.time_us[index]);
    const sorted = [...times].sort((a, b) => a - b);
    const baselines = Object.entries(facts.baselines || {}).sort((a, b) => a[1] - b[1]);
    let low = sorted[0] ?? 1, high = sorted[Math.floor(sorted.length * 0.99)] ?? 10;
    for (const [, value] of baselines) { if (value < high * 3) high = Math.max(high, value); low = Math.min(low, value); }
    traces.push({
      x: measured.map((i) => x[i]), y: times, mode: "markers", type: "scatter", name: "measured",
      marker: { color: color("measured"), size: 5, opacity: 0.5 },
      customdata: measured.map((i) => [table.number[i], table.id[i], table.ratio[i] == null ? "" : `, ${table.ratio[i].toFixed(3)}× the anchor's speed`, esc(table.operator[i] || "proposed"), us(table.time_us[i])]),
      hovertemplate: "trial %{customdata[0]} (%{customdata[3]})<br>%{customdata[4]}%{customdata[2]}<extra></extra>",
    });
    const [bx, by] = bestSoFar(x, table.time_us, end);
    traces.push({ x: bx, y: by, mode: "lines", type: "scatter", name: "best so far", line: { color: color("best"), width: 2.4, shape: "hv" }, text: by.map(us), hovertemplate: "best %{text}<extra></extra>" });
    if (axis !== "seconds" && facts.expectation)
      traces.push({ x: facts.expectation.position, y: facts.expectation.time_us, mode: "lines", type: "scatter", name: "random search, expected", line: { color: color("quiet"), width: 1.4, dash: "dot" }, text: facts.expectation.time_us.map(us), hovertemplate: "random search after %{x}: %{text}<extra></extra>" });
    const shapes = [], annotations = [];
    const shown = baselines.filter(([, value]) => value <= high * 1.04), pixels = 330 / Math.log(high * 1.04 / (low * 0.97));
    let crowd = 0; // labels of lines that lie close: the lower one hangs below its line, a third steps aside
    shown.forEach(([name, value], index) => {
      const above = shown[index + 1], below = shown[index - 1];
      const near = (other) => other && Math.abs(Math.log(other[1] / value)) * pixels < 17;
      crowd = near(below) ? crowd + 1 : 0;
      const hangs = near(above) && crowd === 0;
      shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: { color: color("warn"), width: name === facts.anchor ? 1.6 : 1, dash: "dash" } });
      annotations.push({
        xref: "paper", x: 1 - (narrow() ? 0.4 : 0.18) * Math.max(0, crowd - 1), xanchor: "right", y: Math.log10(value), yanchor: hangs ? "top" : "bottom", showarrow: false,
        text: `${backend(name)} ${us(value)}`, font: { size: 11.5, color: color("warn") }, bgcolor: color("card"), opacity: 0.85, borderpad: 1,
      });
    });
    const stages = STAGES.filter((stage) => table.outcome.includes(stage));
    for (const stage of stages) {
      const mine = [];
      table.outcome.forEach((outcome, index) => { if (outcome === stage) mine.push(index); });
      traces.push({
        x: mine.map((i) => x[i]), y: mine.map(() => stage), yaxis: "y2", mode: "markers", type: "scatter", name: stage, showlegend: false,
        marker: { symbol: "line-ns", size: 9, line: { width: 1.4, color: color(stage) } },
        customdata: mine.map((i) => [table.number[i], table.id[i], esc(table.reason[i])]),
        hovertemplate: `trial %{customdata[0]} rejected<br>${stage}: %{customdata[2]}<extra></extra>`,
      });
    }
    const strip = stages.length ? Math.min(0.36, 0.05 + 0.055 * stages.length) : 0;
    if (stages.length) annotations.push({ xref: "paper", yref: "paper", x: 0, xanchor: "left", y: strip, yanchor: "bottom", showarrow: false, text: "Rejected at", font: { size: 11.5, color: color("quiet") } });
    const done = show(element, traces, {
      xaxis: { ...title(axis === "seconds" ? "Time since the start (s)" : "Evaluations (trials)"), range: [0, Math.max(end, 1) * 1.02], anchor: stages.length ? "y2" : "y" },
      yaxis: { ...title(`Time of one launch (${unitOf(low).name}, log scale)`), ...timeAxis(low, high), domain: [strip ? strip + 0.05 : 0, 1] },
      ...(stages.length ? { yaxis2: { type: "category", categoryarray: [...stages].reverse(), categoryorder: "array", domain: [0, strip], fixedrange: true, tickfont: { size: 11 } } } : {}),
      shapes, annotations, margin: { l: 74, r: 16, t: 12, b: 46 },
    });
    if (!element.dataset.clickable) {
      element.dataset.clickable = "yes";
      done.then(() => element.on("plotly_click", (event) => {
        const id = event.points[0].customdata && event.points[0].customdata[1];
        if (id && !document.body.dataset.standalone) location.href = `/trials/${id}`;
      }));
    }
  }

  function importance(element, pairs) {
    const shown = [...pairs].reverse();
    element.style.height = `${Math.max(230, 64 + 22 * shown.length)}px`;
    show(element, [{
      type: "bar", orientation: "h", x: shown.map((p) => 100 * p[1]), y: shown.map((p) => p[0]), marker: { color: color("measured") },
      hovertemplate: "%{y}: %{x:.1f} %<extra></extra>",
    }], { xaxis: { ...title("Importance (% of PED-ANOVA)"), rangemode: "tozero" }, yaxis: { type: "category", dtick: 1, ...title("Knob") }, margin: { l: 40, r: 12, t: 4, b: 46 } });
  }

  function effect(element, effect, range) {
    const boxes = effect.boxes.filter((box) => box.count > 0);
    const names = effect.boxes.map((box) => box.value);
    show(element, [
      {
        type: "box", x: boxes.map((b) => b.value), q1: boxes.map((b) => b.q1), median: boxes.map((b) => b.median), q3: boxes.map((b) => b.q3),
        lowerfence: boxes.map((b) => b.low), upperfence: boxes.map((b) => b.high), line: { color: color("measured"), width: 1.4 }, fillcolor: color("accent-soft"),
        showlegend: false, whiskerwidth: 0.5, hoverinfo: "y",
      },
      {
        type: "scatter", mode: "markers", x: boxes.map((b) => b.value), y: boxes.map((b) => b.best), marker: { symbol: "diamond", size: 7, color: color("best") }, showlegend: false,
        customdata: boxes.map((b) => [b.count, b.rejected, us(b.best)]), hovertemplate: "%{x}: best %{customdata[2]}<br>%{customdata[0]} measured, %{customdata[1]} rejected<extra></extra>",
      },
    ], {
      xaxis: { type: "category", categoryorder: "array", categoryarray: names, range: [-0.6, names.length - 0.4], ...title(`${effect.knob} (value)`) },
      yaxis: { ...title(`Time (${unitOf(range[0]).name}, log)`), ...timeAxis(range[0], range[1]) }, margin: { l: 50, r: 8, t: 6, b: 44 }, dragmode: false,
    });
  }

  function effectRange(effects) {
    const lows = effects.flatMap((e) => e.boxes.filter((b) => b.count).map((b) => b.best));
    const highs = effects.flatMap((e) => e.boxes.filter((b) => b.count).map((b) => b.high));
    return lows.length ? [Math.min(...lows), Math.max(...highs)] : [1, 10];
  }

  function occupancy(element, facts) {
    const colors = { measure: "measured", verify: "work-verify", build: "work-build", idle: "idle" };
    const traces = ["measure", "verify", "build", "idle"].map((kind) => ({
      x: facts.seconds, y: facts.kinds[kind], name: kind, type: "scatter", mode: "lines", stackgroup: "one", line: { width: 0.5, color: color(colors[kind]), shape: "hvh" },
      fillcolor: color(colors[kind]), hovertemplate: `${kind} %{y:.2f}<extra></extra>`,
    }));
    show(element, traces, { xaxis: { ...title("Time since the first task (s)"), rangemode: "tozero" }, yaxis: { ...title("Busy workers (mean number)"), rangemode: "tozero" }, hovermode: "x unified" });
  }

  function median(values) {
    const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  function heat(element, table, first, second, statistic) {
    const xk = table.knobs[first], yk = table.knobs[second];
    const cells = yk.values.map(() => xk.values.map(() => []));
    const tried = yk.values.map(() => xk.values.map(() => 0));
    table.rows.forEach((row, index) => {
      const x = row[first], y = row[second];
      if (x < 0 || y < 0) return;
      tried[y][x]++;
      if (table.time_us[index] != null) cells[y][x].push(table.time_us[index]);
    });
    const value = (times) => times.length === 0 ? null : statistic === "best" ? Math.min(...times) : median(times);
    const unit = unitOf(Math.min(...table.time_us.filter((time) => time != null)));
    const z = cells.map((row) => row.map((times) => { const found = value(times); return found == null ? null : found / unit.size; }));
    const text = z.map((row, y) => row.map((v, x) => v == null ? (tried[y][x] ? "all rejected" : "") : Number(v.toPrecision(3)).toString()));
    const dark = document.documentElement.dataset.theme === "dark";
    show(element, [{
      type: "heatmap", x: xk.values, y: yk.values, z, text, texttemplate: "%{text}", xgap: 2, ygap: 2, hoverongaps: true,
      colorscale: dark ? [[0, "#8fdcff"], [0.35, "#3d8db0"], [1, "#22323c"]] : [[0, "#12435a"], [0.35, "#5fa3c2"], [1, "#e8eef1"]],
      colorbar: { title: { text: unit.name, side: "right" }, thickness: 10, outlinewidth: 0 },
      customdata: tried, hovertemplate: `${esc(xk.name)} %{x}, ${esc(yk.name)} %{y}<br>${statistic} %{z:.4g} ${unit.name} of %{customdata} trials<extra></extra>`,
    }], { xaxis: { type: "category", ...title(`${xk.name} (value)`), showgrid: false }, yaxis: { type: "category", ...title(`${yk.name} (value)`), showgrid: false }, dragmode: false });
  }

  function esc(text) {
    return String(text).replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);
  }

  function samples(element, series) {
    const palette = ["measured", "verify", "measure"];
    const own = (item) => item.own !== false && (item.own || item.label === "variant");
    const hues = new Map(); // one hue per program, the same warm and cold
    for (const item of series) if (own(item) && !hues.has(item.label)) hues.set(item.label, palette[hues.size % palette.length]);
    const order = [...series].sort((a, b) => (a.l2 === "cold") - (b.l2 === "cold") || own(b) - own(a));
    const every = series.flatMap((item) => item.values_us), low = Math.min(...every), high = Math.max(...every), unit = unitOf(low);
    const far = high > 4 * low; // one outlier must not press all else into a line
    const traces = order.map((item) => {
      const hue = color(hues.get(item.label) || "warn");
      return {
        type: "box", orientation: "h", x: far ? item.values_us : item.values_us.map((v) => v / unit.size), name: `${item.label}, ${item.l2}`, boxpoints: "all", jitter: 0.5, pointpos: 0, marker: { size: 4, opacity: 0.6, color: hue },
        line: { width: 1.2, color: hue }, fillcolor: "rgba(0,0,0,0)", showlegend: false,
        ...(far ? { text: item.values_us.map(us), hovertemplate: "%{text}<extra></extra>" } : { hovertemplate: `%{x:.4g} ${unit.name}<extra></extra>` }),
      };
    });
    element.style.height = `${Math.max(200, 74 + 36 * traces.length)}px`;
    const what = narrow() ? "Time" : "Time of one launch";
    show(element, traces.reverse(), { xaxis: far ? { ...title(`${what} (${unit.name}, log scale)`), ...timeAxis(low, high) } : title(`${what} (${unit.name})`), yaxis: { ...title("Program, L2 cache"), type: "category" }, margin: { l: 60, r: 12, t: 4, b: 46 } });
  }

  function histogram(element, series) {
    const unit = unitOf(Math.min(...series.flatMap((item) => item.values_us)));
    const traces = series.filter((item) => item.label === "variant").map((item) => ({
      type: "histogram", x: item.values_us.map((v) => v / unit.size), name: `${item.l2} L2`, opacity: 0.8, nbinsx: 24, marker: { color: color(item.l2 === "cold" ? "timeout" : "measured") },
      hovertemplate: `%{y} samples around %{x} ${unit.name}<extra></extra>`,
    }));
    show(element, traces, { barmode: "overlay", showlegend: traces.length > 1, xaxis: title(`Time of one launch of this program (${unit.name})`), yaxis: title("Samples (count)"), margin: { l: 54, r: 12, t: 24, b: 46 } });
  }

  function compare(element, curves, axis, metric) {
    const hues = ["measured", "build", "verify", "measure", "timeout", "gates"];
    const logs = metric === "time_us" ? curves.flatMap((c) => c.time_us) : [];
    const traces = curves.map((curve, index) => {
      const end = axis === "seconds" ? curve.end_seconds : curve.end_position;
      const x = [...curve[axis]], y = [...curve[metric]];
      if (x.length && end > x[x.length - 1]) { x.push(end); y.push(y[y.length - 1]); }
      return { x, y, mode: "lines+markers", type: "scatter", name: esc(curve.label), line: { shape: "hv", width: 2.2, color: color(hues[index]) }, marker: { size: 5 }, text: y.map(us), hovertemplate: metric === "ratio" ? "%{y:.3f}×<extra></extra>" : "%{text}<extra></extra>" };
    });
    show(element, traces, {
      xaxis: { ...title(axis === "seconds" ? "Time since the start (s)" : "Evaluations (trials)"), rangemode: "tozero" },
      yaxis: metric === "ratio" ? title("Ratio of the best so far to its anchor (×)") : { ...title(`Best time so far (${unitOf(Math.min(...logs, Infinity)).name}, log scale)`), ...(logs.length ? timeAxis(Math.min(...logs), Math.max(...logs)) : {}) },
      legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0 },
    });
  }

  function spread(element, curves, metric) {
    const hues = ["measured", "build", "verify", "measure", "timeout", "gates"];
    const key = metric === "ratio" ? "spread_ratio" : "spread_us";
    const every = curves.flatMap((curve) => curve.spread_us.value), low = Math.min(...every), high = Math.max(...every);
    const traces = curves.map((curve, index) => ({
      x: curve[key].value, y: curve[key].percent, mode: "lines", type: "scatter", name: esc(curve.label), line: { width: 2, color: color(hues[index]) },
      text: curve[key].value.map((v) => metric === "ratio" ? `${v.toFixed(3)}×` : us(v)), hovertemplate: "%{y:.0f} % at %{text} or faster<extra></extra>",
    }));
    show(element, traces, {
      xaxis: metric === "ratio" ? title("Ratio to its own anchor (×)") : { ...title(`Time of one launch (${unitOf(low).name}, log scale)`), ...timeAxis(low, high) },
      yaxis: { ...title("At least as fast (% of trials)"), rangemode: "tozero" }, legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0 },
    });
  }

  // Parallel coordinates on a canvas; every value of a knob is a button that brushes, reachable by keyboard.
  function parallel(element, whole, most = 500) {
    const varied = whole.knobs.map((_, index) => index).filter((index) => whole.knobs[index].values.length > 1);
    const table = { ...whole, knobs: varied.map((index) => whole.knobs[index]), rows: whole.rows.map((row) => varied.map((index) => row[index])) };
    const wanted = new Map(); // knob index -> set of value indices that are let through
    let share = 1;
    const order = table.time_us.map((t, i) => [t, i]).filter(([t]) => t != null).sort((a, b) => a[0] - b[0]);
    const step = Math.max(1, Math.ceil(order.length / most));
    const lines = order.filter((_, rank) => rank % step === 0 || rank < 40).map(([time, index]) => ({ time, row: table.rows[index], rank: 0 }));
    lines.forEach((line, rank) => { line.rank = rank / Math.max(1, lines.length - 1); });
    const low = lines.length ? lines[0].time : 1, high = lines.length ? lines[lines.length - 1].time : 2;
    element.textContent = "";
    element.classList.remove("waiting", "nothing");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    element.append(canvas);
    const top = 46, bottom = 16, left = 46, right = 34;
    const axes = table.knobs.length + 1;
    const xOf = (axis) => left + (element.clientWidth - left - right) * axis / Math.max(1, axes - 1);
    const yOf = (index, count) => top + (element.clientHeight - top - bottom) * (count === 1 ? 0.5 : 1 - index / (count - 1));
    const yTime = (time) => top + (element.clientHeight - top - bottom) * (Math.log(time / low) / Math.log(high / low || 2));
    const passes = (line) => line.rank <= share && [...wanted].every(([knob, values]) => values.size === 0 || values.has(line.row[knob]));
    const buttons = [];

    table.knobs.forEach((knob, axis) => {
      const holder = document.createElement("div");
      holder.className = "axis";
      holder.setAttribute("role", "group");
      holder.setAttribute("aria-label", `Brush ${knob.name}`);
      const name = document.createElement("span");
      name.className = "title";
      name.textContent = knob.name;
      name.style.top = `${axis % 2 ? 16 : 0}px`;
      holder.append(name);
      knob.values.forEach((value, index) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = value;
        button.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-label", `${knob.name} ${value}`);
        button.addEventListener("click", () => {
          const set = wanted.get(axis) || new Set();
          if (set.has(index)) set.delete(index); else set.add(index);
          wanted.set(axis, set);
          button.setAttribute("aria-pressed", String(set.has(index)));
          paint();
        });
        buttons.push({ button, axis, index, count: knob.values.length });
        holder.append(button);
      });
      element.append(holder);
    });
    const last = document.createElement("div");
    last.className = "axis";
    const name = document.createElement("span");
    name.className = "title";
    name.textContent = `time (${unitOf(low).name})`;
    name.style.top = `${(axes - 1) % 2 ? 16 : 0}px`;
    const fast = document.createElement("span"), slow = document.createElement("span");
    fast.className = slow.className = "bound";
    fast.textContent = Number((low / unitOf(low).size).toPrecision(3)); slow.textContent = Number((high / unitOf(low).size).toPrecision(3));
    last.append(name, fast, slow);
    element.append(last);

    function paint() {
      const scale = devicePixelRatio || 1, width = element.clientWidth, height = element.clientHeight;
      canvas.width = width * scale; canvas.height = height * scale;
      canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
      [...element.querySelectorAll(".axis")].forEach((holder, axis) => { holder.style.left = `${xOf(axis)}px`; });
      for (const { button, index, count } of buttons) button.style.top = `${yOf(index, count)}px`;
      fast.style.top = `${yTime(low)}px`; slow.style.top = `${yTime(high)}px`;
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      pen.strokeStyle = color("line");
      for (let axis = 0; axis < axes; axis++) { pen.beginPath(); pen.moveTo(xOf(axis), top); pen.lineTo(xOf(axis), height - bottom); pen.stroke(); }
      const brushed = share < 1 || [...wanted.values()].some((set) => set.size);
      let through = 0;
      const stroke = (line, style, alpha, thick) => {
        pen.strokeStyle = style; pen.globalAlpha = alpha; pen.lineWidth = thick;
        pen.beginPath();
        line.row.forEach((value, axis) => { const y = yOf(Math.max(0, value), table.knobs[axis].values.length); if (axis) pen.lineTo(xOf(axis), y); else pen.moveTo(xOf(axis), y); });
        pen.lineTo(xOf(axes - 1), yTime(line.time));
        pen.stroke();
      };
      for (const line of [...lines].reverse()) if (brushed && !passes(line)) stroke(line, color("line"), 0.5, 1);
      for (const line of [...lines].reverse()) if (!brushed || passes(line)) { through++; stroke(line, line.rank < 0.1 ? color("best") : color("measured"), line.rank < 0.1 ? 0.75 : 0.16 + 0.25 * (1 - line.rank), line.rank < 0.1 ? 1.6 : 1); }
      pen.globalAlpha = 1;
      const status = document.getElementById(element.dataset.status || "");
      if (status) status.textContent = `${through} of ${lines.length} lines`;
    }
    element.paint = paint;
    element.fastest = (part) => { share = part; paint(); };
    element.clearBrushes = () => { wanted.clear(); for (const { button } of buttons) button.setAttribute("aria-pressed", "false"); paint(); };
    if (!element.watched) { element.watched = new ResizeObserver(() => element.paint()); element.watched.observe(element); }
    paint();
  }

  return { draw, progress, importance, effect, effectRange, occupancy, heat, samples, histogram, compare, spread, parallel };
})();
