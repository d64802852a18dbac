// Runs side by side: filter, all points of all paths, the Pareto front. Then everything starts.
"use strict";
(() => {
  const several = kit.data.several;
  if (several) {
    const section = document.getElementById("several");
    const rows = [...section.querySelector("tbody").rows];
    const byName = new Map(several.map((run, i) => [rows[i], run]));
    let shown = several;
    rows.forEach((row, i) => {
      const mark = kit.make("span", {class: "mark"});
      mark.style.background = kit.series(i);
      row.cells[0].prepend(mark);
    });
    const redraw = kit.mount(document.querySelector("#several-figure .chart"), draw);
    const filter = document.getElementById("filter");

    function apply() {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      shown = rows.filter((row) => !row.hidden).map((row) => byName.get(row));
      document.getElementById("count").textContent = `${shown.length} of ${rows.length} runs`;
      redraw();
    }
    filter.addEventListener("input", apply);
    apply();

    function draw(width) {
      const colour = (run) => kit.series(several.indexOf(run));
      const points = shown.flatMap((run) => run.t.map((t, i) => ({run, t, UA: run.UA[i], RA: run.RA[i]}))).filter((p) => p.UA !== null && p.RA !== null);
      const best = shown.map((run) => ({run, ...run.mcu})).filter((p) => p.UA !== null && p.RA !== null);
      const yardsticks = shown.map((run) => ({run, ...run.retrain})).filter((p) => p.UA !== null && p.RA !== null);
      if (!points.length) return null;
      return Plot.plot({
        width, height: Math.min(560, Math.max(300, 0.5 * width)), marginLeft: 44, marginRight: 20, marginTop: 24, marginBottom: 40,
        x: {label: "unlearning accuracy, UA (%)", nice: true, grid: true, ...kit.plainTicks},
        y: {label: "retain accuracy, RA (%)", nice: true, grid: true, labelArrow: "none", tickSize: 4},
        marks: [
          Plot.line(points, {x: "UA", y: "RA", z: "run", stroke: (d) => colour(d.run), strokeOpacity: 0.25}),
          Plot.dot(points, {x: "UA", y: "RA", r: 1.6, fill: (d) => colour(d.run), fillOpacity: 0.55}),
          Plot.line(front(points), {x: "UA", y: "RA", stroke: "currentColor", strokeWidth: 1.3, curve: "step-after"}),
          Plot.dot(yardsticks, {x: "UA", y: "RA", symbol: "times", r: 5, stroke: "var(--retrained)", strokeWidth: 2}),
          Plot.dot(best, {x: "UA", y: "RA", r: 5.5, fill: (d) => colour(d.run), stroke: "var(--paper)", strokeWidth: 1.5}),
          Plot.tip(points, Plot.pointer({x: "UA", y: "RA", title: (d) => `${kit.short(d.run.name, 60)}\nt = ${d.t}`, fill: "var(--paper)"})),
        ],
      });
    }

    // From the most forgetful point on, those which retain more than all before.
    function front(points) {
      let most = -Infinity;
      return d3.sort(points, (a, b) => d3.descending(a.UA, b.UA) || d3.descending(a.RA, b.RA)).filter((p) => p.RA > most && ((most = p.RA), true));
    }
  }

  for (const explorer of kit.explorers) explorer.start();
  document.documentElement.dataset.ready = Math.round(performance.now());
})();
