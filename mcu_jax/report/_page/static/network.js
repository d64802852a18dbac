// The mask as a map of the network, the history of training, where the seconds went.
"use strict";
(() => {
  const charts = {mask, history, seconds};
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const draw = charts[figure.dataset.chart];
    if (!draw) continue;
    const run = /^run-(\d+)/.exec(figure.id)[1];
    const part = kit.data.runs[run][figure.dataset.chart];
    kit.mount(figure.querySelector(".chart"), (width) => draw(part, width));
  }

  function mask({layers}, width) {
    // As high as the logarithm of what a layer holds, so that a small one is still seen.
    const thick = (layer) => 7 + 3.2 * Math.log10(Math.max(layer.count, 1));
    let top = 0;
    const rows = layers.map((layer) => {
      const row = {...layer, y1: top, y2: top + thick(layer)};
      top += thick(layer) + 5;
      return row;
    });
    const narrow = width < 560;
    const left = Math.min(narrow ? 120 : 220, 12 + 6.2 * d3.max(layers, (layer) => layer.name.length));
    const most = Math.floor((left - 10) / 6);
    return Plot.plot({
      width, height: top + 44, marginLeft: left, marginRight: narrow ? 14 : 190, marginTop: 6, marginBottom: 34,
      x: {domain: [0, 100], label: "share trained, %", grid: true, ...kit.plainTicks},
      y: {domain: [top, 0], axis: null},
      marks: [
        Plot.rect(rows, {x1: 0, x2: 100, y1: "y1", y2: "y2", fill: "var(--wash)", stroke: "var(--faint)"}),
        Plot.rect(rows, {x1: 0, x2: "kept", y1: "y1", y2: "y2", fill: "var(--path)", fillOpacity: 0.85}),
        Plot.link(rows.filter((row) => row.high > row.low), {x1: "low", x2: "high", y1: (d) => (d.y1 + d.y2) / 2, y2: (d) => (d.y1 + d.y2) / 2, stroke: "currentColor", strokeWidth: 1.5}),
        Plot.text(rows, {x: 0, y: (d) => (d.y1 + d.y2) / 2, text: (d) => kit.short(d.name, most), textAnchor: "end", dx: -6}),
        narrow ? null : Plot.text(rows, {x: 100, y: (d) => (d.y1 + d.y2) / 2, text: (d) => `${kit.short(d.shape, 20)}, ${d.kept.toFixed(1)} %`, textAnchor: "start", dx: 8, fill: "var(--soft)"}),
      ],
    });
  }

  function history({seeds}, width) {
    const names = {loss: "loss of the path's training", beta: "β", t: "t drawn"};
    const rows = Object.keys(names).flatMap((name) =>
      seeds.flatMap((each) => each.step.map((step, i) => ({name, seed: each.seed, step, value: each[name][i]}))),
    ).filter((row) => row.value !== null);
    if (!rows.length) return null;
    const places = Object.keys(names).filter((name) => rows.some((row) => row.name === name));
    const parts = places.map((name, place) => Plot.plot({
      width, height: 150, marginLeft: 52, marginRight: 12, marginTop: 24, marginBottom: place === places.length - 1 ? 34 : 22,
      x: {label: place === places.length - 1 ? "step" : null, tickFormat: (step) => (Number.isInteger(step) ? step.toLocaleString("en") : ""), ...kit.plainTicks},
      y: {label: names[name], ticks: 4, grid: true, zero: name === "beta", domain: name === "t" ? [0, 1] : undefined, labelArrow: "none", tickSize: 0},
      marks: [
        name === "t"
          ? Plot.dot(rows.filter((row) => row.name === "t"), {x: "step", y: "value", r: rows.length > 1000 ? 1.2 : 2, fill: "var(--path)", fillOpacity: 0.6})
          : Plot.line(rows.filter((row) => row.name === name), {x: "step", y: "value", z: "seed", stroke: "var(--path)", strokeOpacity: 0.75, strokeWidth: 1.1}),
      ],
    }));
    return stacked(parts, width);
  }

  // Several charts below each other as one picture.
  function stacked(parts, width) {
    const tall = parts.map((part) => Number(part.getAttribute("height")));
    const svg = kit.makeSvg("svg", {width, height: d3.sum(tall), viewBox: `0 0 ${width} ${d3.sum(tall)}`});
    let top = 0;
    parts.forEach((part, i) => {
      part.setAttribute("y", top);
      svg.append(part);
      top += tall[i];
    });
    return svg;
  }
  kit.stacked = stacked;

  function seconds({methods, parts, bars}, width) {
    const narrow = width < 560;
    const left = Math.min(narrow ? 120 : 230, 14 + 6.2 * d3.max(methods, (method) => method.length));
    const most = Math.floor((left - 12) / 6);
    const shades = parts.filter((part) => part !== "compile");
    const colour = (part) => (part === "compile" ? "var(--faint)" : kit.series(shades.indexOf(part)));
    const used = parts.filter((part) => bars.some((bar) => bar.part === part && bar.seconds > 0));
    const rows = bars.filter((bar) => bar.seconds > 0);
    if (!rows.length) return null;
    const several = used.length > 1;
    const place = (part, i) => (narrow ? {x: 0, y: 15 * i} : {x: 125 * (i % Math.floor(width / 125)), y: 15 * Math.floor(i / Math.floor(width / 125))});
    const keys = several ? used.map((part, i) => ({part, ...place(part, i)})) : [];
    const above = several ? 18 + (d3.max(keys, (key) => key.y) ?? 0) + 8 : 8;
    const svg = Plot.plot({
      width, height: 22 * methods.length + above + 38, marginLeft: left, marginRight: 16, marginTop: above, marginBottom: 34,
      x: {label: "seconds", grid: true, ...kit.plainTicks},
      y: {domain: methods, label: null, tickSize: 0, tickFormat: (method) => kit.short(method, most)},
      marks: [
        Plot.barX(rows, Plot.stackX({x: "seconds", y: "method", z: "part", order: parts, fill: (d) => colour(d.part), insetTop: 2, insetBottom: 2, insetRight: 0.5})),
        Plot.ruleX([0]),
      ],
    });
    for (const {part, x, y} of keys) {
      svg.append(kit.makeSvg("rect", {x, y: y + 1, width: 11, height: 11, fill: colour(part)}));
      const words = kit.makeSvg("text", {x: x + 16, y: y + 10, fill: "currentColor", "text-anchor": "start"});
      words.textContent = part === "compile" ? "compilation" : part;
      svg.append(words);
    }
    return svg;
  }
})();
