// What the pages do: fetch their facts, draw their charts, follow a running search.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const inline = (id) => { const holder = $(id); return holder ? JSON.parse(holder.textContent) : null; };
  const facts = async (url) => { const answer = await fetch(url); if (!answer.ok) throw new Error(`${url}: ${answer.status}`); return answer.json(); };
  const say = (element, text) => { if (element) { element.textContent = text; element.classList.remove("waiting"); element.classList.add("nothing"); } };
  const pressed = (group, button) => group.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
  const pause = (milliseconds = 0) => new Promise((done) => setTimeout(done, milliseconds));

  // What is written on a page must not wait for Plotly's four megabytes: they are asked for after the first paint.
  const painted = new Promise((done) => {
    setTimeout(done, 1000); // a tab in the background is not painted
    try { new PerformanceObserver((seen) => { if (seen.getEntriesByName("first-contentful-paint").length) done(); }).observe({ type: "paint", buffered: true }); } catch { done(); }
  });
  const sources = ((document.currentScript && document.currentScript.dataset.charts) || "").split(" ").filter(Boolean); // none in a report: all is inside
  const script = (source) => new Promise((done, failed) => {
    const element = document.createElement("script");
    element.src = source;
    element.onload = done;
    element.onerror = () => failed(new Error(`${source} could not be loaded`));
    document.head.append(element);
  });
  let loading = null;
  const charts = () => loading || (loading = painted.then(() => Promise.all(sources.map(script))));

  const choose = (id, then) => {
    const group = $(id);
    if (group) group.addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) { pressed(group, button); then(button.value); } });
  };

  async function campaign(root) {
    const id = root.dataset.campaign;
    let axis = "position", statistic = "median", table = null, progress = null, picked = false;
    let drawnAt = 0, drawingTook = 0;
    const drawProgress = () => {
      if (!table || !table.position.length) return;
      const begun = performance.now();
      Charts.draw($("progress"), () => Charts.progress($("progress"), table, progress, axis));
      drawnAt = performance.now();
      drawingTook = drawnAt - begun;
    };
    const drawHeat = () => {
      const first = $("heat-x"), second = $("heat-y");
      if (!table || !first || !first.options.length) return;
      Charts.draw($("heat"), () => Charts.heat($("heat"), table, Number(first.value), Number(second.value), statistic));
    };
    const drawParallel = () => Charts.draw($("parallel"), () => Charts.parallel($("parallel"), table));
    const hasTimes = () => table.time_us.some((time) => time != null);

    function fillSelects(ranking) {
      const first = $("heat-x"), second = $("heat-y");
      if (!first || picked || !table.knobs.length) return;
      const varied = table.knobs.map((knob, index) => ({ name: knob.name, index })).filter(({ index }) => table.knobs[index].values.length > 1);
      for (const select of [first, second]) {
        select.textContent = "";
        for (const { name, index } of varied) select.add(new Option(name, index));
      }
      const rank = ranking.map(([name]) => varied.find((knob) => knob.name === name)).filter(Boolean);
      const order = [...rank, ...varied.filter((knob) => !rank.includes(knob))];
      if (order.length) first.value = order[0].index;
      if (order.length > 1) second.value = order[1].index;
    }

    async function drawPoints() {
      if (!table.position.length) { for (const name of ["progress", "heat", "parallel"]) say($(name), "No trial yet."); return; }
      drawProgress();
      await pause(); // between charts the page listens
      if (hasTimes()) { drawHeat(); await pause(); drawParallel(); } else for (const name of ["heat", "parallel"]) say($(name), "Nothing was measured yet.");
    }

    let importance = [], found = null;

    function drawImportance() {
      if (importance.length) Charts.draw($("importance"), () => Charts.importance($("importance"), importance));
      else say($("importance"), "Needs 20 measured trials.");
    }

    async function drawAnalysis() {
      if (found.occupancy) Charts.draw($("occupancy"), () => Charts.occupancy($("occupancy"), found.occupancy));
      else say($("occupancy"), "No worker times were recorded.");
      const share = $("seat-share");
      if (share && found.occupancy && found.occupancy.seat_busy_share != null) share.textContent = `Measuring workers were busy ${(100 * found.occupancy.seat_busy_share).toFixed(0)} % of the time.`;
      const holder = $("effects");
      const order = new Map(importance.map(([name], index) => [name, index]));
      const effects = found.effects.filter((e) => e.boxes.length > 1 && e.boxes.some((b) => b.count)).sort((a, b) => (order.get(a.knob) ?? 99) - (order.get(b.knob) ?? 99));
      if (!effects.length) { say(holder, "Nothing was measured yet."); return; }
      const range = Charts.effectRange(effects);
      holder.classList.remove("waiting", "nothing");
      if (holder.querySelectorAll(".chart").length !== effects.length) {
        holder.textContent = "";
        for (let index = 0; index < effects.length; index++) { const box = document.createElement("div"); box.className = "chart"; box.setAttribute("role", "img"); holder.append(box); }
      }
      for (const [index, effect] of effects.entries()) {
        const box = holder.children[index];
        box.setAttribute("aria-label", `Distribution of time by value of ${effect.knob}`);
        await pause();
        Charts.draw(box, () => Charts.effect(box, effect, range));
      }
    }

    // Effects at once; their order and the heat map's knobs when the importances, which take longer, are there.
    async function analyse() {
      found = inline("analysis") || await facts(`/api/campaigns/${id}/analysis`);
      const weighing = inline("importances") || facts(`/api/campaigns/${id}/importance`);
      await drawAnalysis();
      importance = await weighing;
      drawImportance();
      fillSelects(importance);
      if (importance.length) await drawAnalysis();
      if (table.position.length && hasTimes()) drawHeat();
    }

    choose("progress-axis", (value) => { axis = value; drawProgress(); });
    choose("heat-statistic", (value) => { statistic = value; drawHeat(); });
    choose("parallel-share", (value) => $("parallel").fastest && $("parallel").fastest(Number(value)));
    if ($("parallel-clear")) $("parallel-clear").addEventListener("click", () => $("parallel").clearBrushes && $("parallel").clearBrushes());
    for (const name of ["heat-x", "heat-y"]) if ($(name)) $(name).addEventListener("change", () => { picked = true; drawHeat(); });

    await painted;
    [table] = await Promise.all([inline("points") || facts(`/api/campaigns/${id}/points`), charts()]);
    progress = table.progress;
    fillSelects([]);
    await drawPoints();
    await analyse();
    // Drawing a watched search takes no more than a twentieth of the time.
    const grew = (added) => { append(table, added); if (performance.now() - drawnAt > 20 * drawingTook) drawProgress(); };
    const redraw = async () => { drawProgress(); await analyse(); if (hasTimes()) drawParallel(); };
    if (!document.body.dataset.standalone) follow(id, root, table, grew, redraw);
  }

  function append(table, added) {
    // New trials may bring values that no earlier trial had: translate indices into this page's lists.
    added.knobs.forEach((knob) => {
      let mine = table.knobs.find((k) => k.name === knob.name);
      if (!mine) { mine = { name: knob.name, values: [] }; table.knobs.push(mine); }
      for (const value of knob.values) if (!mine.values.includes(value)) mine.values.push(value);
    });
    const rows = added.rows.map((row) => table.knobs.map((knob) => {
      const place = added.knobs.findIndex((k) => k.name === knob.name);
      return place < 0 || row[place] < 0 ? -1 : knob.values.indexOf(added.knobs[place].values[row[place]]);
    }));
    for (const column of ["position", "id", "number", "seconds", "time_us", "ratio", "outcome", "reason", "operator"]) table[column].push(...added[column]);
    table.rows.push(...rows);
    table.total = added.total;
  }

  function follow(id, root, table, grew, redraw) {
    let state = root.dataset.state, evaluated = -1, analysed = performance.now(), rest = 8000, listed = 0, busy = false; // -1: the points drawn may be more than the page said
    if (state !== "running") return;
    const timer = setInterval(async () => {
      if (document.hidden || busy) return;
      busy = true;
      try {
        const ids = table.id;
        const whole = performance.now() - listed > 6000; // lists change slowly and cost the most
        const news = await facts(`/campaigns/${id}/live?after=${ids.length ? ids[ids.length - 1] : 0}&evaluated=${evaluated}&whole=${whole}`);
        if (whole) listed = performance.now();
        for (const [name, html] of Object.entries(news.parts)) replace($(`part-${name}`), html);
        if (news.points && news.points.position.length) grew(news.points);
        evaluated = news.evaluated;
        const ended = news.state !== "running";
        if (ended || performance.now() - analysed > rest) {
          const begun = performance.now();
          await redraw();
          analysed = performance.now();
          rest = Math.max(8000, 40 * (analysed - begun)); // what the analysis costs must not grow with the search
        }
        state = news.state;
        root.dataset.state = state;
        if (ended) clearInterval(timer);
      } catch (error) { console.warn(`not updated: ${error.message}`); } finally { busy = false; }
    }, 1800);
  }

  // Replace a part of the page, keeping what the reader has opened.
  function replace(part, html) {
    if (!part) return;
    const open = new Set([...part.querySelectorAll("details[open]")].map((d) => d.dataset.key));
    const focused = document.activeElement && part.contains(document.activeElement);
    if (focused) return; // never pull the ground from under a reader's keyboard
    part.innerHTML = html;
    part.querySelectorAll("details").forEach((d) => { if (open.has(d.dataset.key)) d.open = true; });
  }

  function list(root) {
    if (root.dataset.live !== "yes") return;
    setInterval(async () => {
      if (document.hidden || root.contains(document.activeElement)) return;
      const address = new URL(location.href);
      address.searchParams.set("fragment", "true");
      try {
        const answer = await fetch(address);
        if (answer.ok) root.innerHTML = await answer.text();
      } catch { /* the server is gone; what is shown stays */ }
    }, 1900);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const root = document.querySelector("main");
    const failed = (error) => { for (const chart of document.querySelectorAll(".chart.waiting")) say(chart, `The charts could not be loaded (${error.message}).`); };
    if (root.dataset.campaign) campaign(root).catch(failed);
    if ($("campaign-rows")) list($("campaign-rows"));
    for (const kind of ["histogram", "samples"]) for (const element of document.querySelectorAll(`[data-${kind}]`)) {
      const series = inline(element.dataset[kind]);
      if (series && series.length) charts().then(() => pause()).then(() => Charts.draw(element, () => Charts[kind](element, series))).catch(failed);
    }
    if ($("curves")) {
      const curves = inline("curve-data").curves;
      let axis = "position", metric = $("curves").dataset.metric;
      const draw = () => { Charts.draw($("curves"), () => Charts.compare($("curves"), curves, axis, metric)); Charts.draw($("spread"), () => Charts.spread($("spread"), curves, metric)); };
      choose("compare-axis", (value) => { axis = value; draw(); });
      choose("compare-metric", (value) => { metric = value; draw(); });
      charts().then(draw).catch(failed);
    }
    document.querySelectorAll("select[data-submit]").forEach((select) => select.addEventListener("change", () => select.form.submit()));
    document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText($(button.dataset.copy).textContent.trim()); button.textContent = "Copied"; } catch { button.textContent = "Select and copy"; }
    }));
  });
})();
