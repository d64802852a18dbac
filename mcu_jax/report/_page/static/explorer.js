// The path explorer: one slider over t moves every view of its run.
"use strict";
kit.explorers = (() => {
  const explorers = [];

  for (const section of document.querySelectorAll(".explorer")) {
    const run = Number(section.dataset.run);
    const along = kit.data.runs[run].explorer;
    if (!along) continue;
    const slider = section.querySelector("input[type=range]");
    const output = section.querySelector("output");
    const announce = kit.announcer(section.querySelector(".live"));
    const state = {run, along, seed: null, rule: along.rule, t: 0, views: []};
    explorers.push(state);

    const panels = [...section.querySelectorAll("[data-chart=panel]")].map((figure) => panel(state, figure, slider));

    function move() {
      const i = Number(slider.value);
      state.t = along.t[i];
      output.textContent = state.t.toFixed(2);
      slider.setAttribute("aria-valuetext", `t = ${state.t.toFixed(2)}`);
      const told = panels.map((each) => each.move(i));
      for (const view of state.views) view(state.t);
      announce(`t = ${state.t.toFixed(2)}: ${told.join(", ")}`);
    }

    state.to = (t) => {
      slider.value = kit.nearest(along.t, t);
      move();
    };
    const best = () => {
      const ts = along.rules[state.rule].best;
      return state.seed === null ? d3.median(ts) : ts[state.seed];
    };
    const jumps = {start: () => 0, best, end: () => 1};
    for (const button of section.querySelectorAll("[data-jump]")) {
      button.addEventListener("click", () => state.to(jumps[button.dataset.jump]()));
    }
    for (const choice of section.querySelectorAll("[data-choose]")) {
      // The browser may remember what was chosen before it loaded the page again.
      const read = () => {
        if (choice.dataset.choose === "rule") state.rule = choice.value;
        else state.seed = choice.value === "" ? null : Number(choice.value);
      };
      read();
      choice.addEventListener("change", () => {
        read();
        for (const each of panels) each.redraw();
        move();
      });
    }
    slider.addEventListener("input", move);
    state.start = () => state.to(best());
  }

  function panel(state, figure, slider) {
    const metric = state.along.metrics[Number(figure.dataset.metric)];
    const {t, rules} = state.along;
    const [now, beside] = figure.querySelectorAll(".now, .beside");
    let cursor = null;

    // Of all seeds the median and the band, of one its own values.
    const curve = (of) => {
      if (!of) return [];
      const one = state.seed === null ? null : of.seeds[state.seed];
      return t.map((at, i) => ({t: at, value: one ? one[i] : of.middle[i], low: one ? null : of.low[i], high: one ? null : of.high[i]}));
    };
    const retrained = () => {
      const of = metric.retrained;
      if (!of) return null;
      const one = state.seed === null ? null : of.seeds[state.seed];
      return state.seed === null ? of : {middle: one, low: one, high: one};
    };

    function draw(width) {
      const path = curve(metric.path), line = curve(metric.line), yardstick = retrained();
      const rule = rules[state.rule];
      const region = (state.seed === null ? rule.common : rule.regions[state.seed]).map(([a, b]) => ({a, b}));
      const best = state.seed === null ? rule.best : [rule.best[state.seed]];
      const shown = kit.finite([
        ...path.flatMap((p) => [p.value, p.low, p.high]), ...line.map((p) => p.value),
        ...(yardstick ? [yardstick.low, yardstick.high] : []),
      ]);
      if (!shown.length) return null;
      const several = path.some((p) => p.low !== null) && metric.path.seeds.length > 1;
      const known = path.filter((p) => p.value !== null);
      return Plot.plot({
        width, height: 190, marginLeft: 40, marginRight: 10, marginTop: 10, marginBottom: 30,
        x: {domain: [0, 1], label: "t", ticks: 5, ...kit.plainTicks},
        y: {domain: domain(shown, metric.most), label: null, ticks: 5, grid: true, tickSize: 0},
        marks: [
          Plot.rect(region, {x1: "a", x2: "b", fill: "var(--region)", fillOpacity: 0.16}),
          yardstick && yardstick.low !== yardstick.high
            ? Plot.rect([yardstick], {y1: "low", y2: "high", fill: "var(--retrained)", fillOpacity: 0.14}) : null,
          yardstick && yardstick.middle !== null
            ? Plot.ruleY([yardstick.middle], {stroke: "var(--retrained)", strokeWidth: 1.5, strokeDasharray: "6 3"}) : null,
          several ? Plot.areaY(known, {x: "t", y1: "low", y2: "high", fill: "var(--path)", fillOpacity: 0.2}) : null,
          Plot.line(line.filter((p) => p.value !== null), {x: "t", y: "value", stroke: "var(--line)", strokeWidth: 1.3}),
          Plot.line(known, {x: "t", y: "value", stroke: "var(--path)", strokeWidth: 2}),
          Plot.ruleX([d3.median(best)], {stroke: "currentColor", strokeDasharray: "1 3", strokeWidth: 1.2}),
          best.length > 1 ? Plot.tickX(best, {stroke: "currentColor", strokeWidth: 1, insetTop: 145}) : null,
        ],
      });
    }

    // The mark of the slider, over the chart; a press on the chart moves it too.
    function drawn(svg) {
      const x = svg.scale?.("x") ?? null;
      if (!x) return;
      const y = svg.scale("y");
      const rule = kit.makeSvg("line", {y1: 6, y2: 160, stroke: "currentColor", "stroke-width": 1});
      const dot = kit.makeSvg("circle", {r: 4.5, fill: "var(--path)", stroke: "var(--paper)", "stroke-width": 1.5});
      svg.append(rule, dot);
      cursor = (i) => {
        const values = curve(metric.path);
        const at = x.apply(t[i]);
        rule.setAttribute("x1", at);
        rule.setAttribute("x2", at);
        dot.setAttribute("cx", at);
        dot.setAttribute("visibility", values[i].value === null ? "hidden" : "visible");
        if (values[i].value !== null) dot.setAttribute("cy", y.apply(values[i].value));
      };
      const follow = (event) => {
        const box = svg.getBoundingClientRect();
        const at = x.invert(((event.clientX - box.left) * svg.viewBox.baseVal.width) / box.width);
        state.to(Math.max(0, Math.min(1, at)));
      };
      svg.addEventListener("pointerdown", follow);
      svg.addEventListener("pointermove", (event) => event.buttons === 1 && follow(event));
      cursor(Number(slider.value));
    }

    const redraw = kit.mount(figure.querySelector(".chart"), draw, drawn);
    return {
      redraw,
      move(i) {
        cursor?.(i);
        const value = kit.fixed(curve(metric.path)[i].value, metric.decimals);
        const yardstick = retrained();
        now.textContent = value;
        const best = yardstick ? `retrained ${kit.fixed(yardstick.middle, metric.decimals)}` : "";
        beside.textContent = metric.best === "0" ? ["best: 0", best].filter(Boolean).join(", ") : best && `best: ${best}`;
        return `${metric.short} ${value}`;
      },
    };
  }

  // A flat curve looks flat: at least four parts in a hundred of what is possible, and no tick beyond that.
  function domain(shown, most) {
    let [low, high] = d3.extent(shown);
    const least = most === null ? Math.max(high - low, Math.abs(high) * 0.05, 1e-3) : 0.04 * most;
    const pad = Math.max(0, least - (high - low)) / 2 + 0.05 * (high - low);
    low = Math.max(0, low - pad);
    high = most === null ? high + pad : Math.min(most + 0.01 * (most - low), high + pad);
    return [low, high];
  }

  return explorers;
})();
