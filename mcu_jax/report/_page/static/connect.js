// Of connections: heat map and tree, metrics along a chosen path, barriers, sizes, controls.
"use strict";
for (const section of document.querySelectorAll("section.curves")) {
  const run = section.dataset.run;
  const {paths, panels} = kit.data.runs[run].curves;
  const select = section.querySelector("select");
  const announce = kit.announcer(section.querySelector(".live"));
  const path = () => paths[Number(select.value)];
  const redraws = panels.map((panel, i) => kit.mount(document.querySelector(`#run-${run}-curve-${i} .chart`), (width) => draw(panel, width)));
  select.addEventListener("change", show);

  function show() {
    for (const redraw of redraws) redraw();
    announce(`shown: ${path().label}`);
  }

  kit.choose ??= {};
  kit.choose[run] = (a, b) => {
    const i = paths.findIndex((each) => each.role === (a === b ? "floor" : "pair") && ((each.a === a && each.b.startsWith(b)) || (each.a === b && each.b.startsWith(a))));
    if (i < 0) return;
    select.value = i;
    show();
    section.scrollIntoView({block: "start"});
    select.focus({preventScroll: true});
  };

  function draw(panel, width) {
    const of = path().metrics[panel.name];
    if (!of) return null;
    const rows = path().t.map((t, i) => ({t, value: of.middle[i], low: of.low[i], high: of.high[i]})).filter((row) => row.value !== null);
    // One scale for all paths, so that choosing another shows what differs.
    const all = kit.finite(paths.flatMap((each) => (each.metrics[panel.name] ? [...each.metrics[panel.name].low, ...each.metrics[panel.name].high, each.metrics[panel.name].retrained] : [])));
    if (!all.length) return null;
    return Plot.plot({
      width, height: 180, marginLeft: 46, marginRight: 10, marginTop: 10, marginBottom: 32,
      x: {domain: [0, 1], label: "t", ticks: 5, ...kit.plainTicks},
      y: {domain: [Math.min(0, d3.min(all)) === 0 && panel.most === null ? 0 : d3.min(all), d3.max(all) || 1], label: null, nice: true, ticks: 5, grid: true, tickSize: 0},
      marks: [
        of.retrained === null ? null : Plot.ruleY([of.retrained], {stroke: "var(--retrained)", strokeWidth: 1.5, strokeDasharray: "6 3"}),
        Plot.areaY(rows, {x: "t", y1: "low", y2: "high", fill: "var(--path)", fillOpacity: 0.2}),
        Plot.line(rows, {x: "t", y: "value", stroke: "var(--path)", strokeWidth: 2}),
      ],
    });
  }
}

(() => {
  const charts = {matrix, barriers, sizes, controls};
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const draw = charts[figure.dataset.chart];
    if (!draw) continue;
    const run = /^run-(\d+)/.exec(figure.id)[1];
    kit.mount(figure.querySelector(".chart"), (width) => draw(kit.data.runs[run][figure.dataset.chart], width, run));
    if (figure.dataset.chart === "matrix") choosable(figure, kit.data.runs[run].matrix, run);
  }

  // The keyboard chooses a cell by the names in the table below the picture.
  function choosable(figure, {labels}, run) {
    const rows = [...figure.querySelectorAll("tbody tr")];
    rows.forEach((row, i) => {
      [...row.cells].slice(1).forEach((cell, j) => {
        const button = kit.make("button", {type: "button", "aria-label": `${labels[i]} and ${labels[j]}, ${cell.textContent}: show the curve`}, cell.textContent);
        button.addEventListener("click", () => kit.choose?.[run]?.(labels[i], labels[j]));
        cell.replaceChildren(button);
      });
    });
  }

  function matrix({labels, values, tree}, width, run) {
    const n = labels.length, side = Math.min(width, 150 + 64 * n);
    const left = Math.min(0.34 * side, 14 + 6.2 * d3.max(labels, (label) => label.length));
    const most = Math.floor((left - 10) / 6);
    const cell = (side - left - 8) / n, branches = 70;
    const top = d3.max(kit.finite(values.flat())) || 1;
    // By square roots: one method far from all others would leave the rest without contrast.
    const shade = d3.scaleSequentialSqrt([0, top], d3.interpolateYlGnBu);
    const svg = kit.makeSvg("svg", {width: side, height: branches + n * cell + left + 8, viewBox: `0 0 ${side} ${branches + n * cell + left + 8}`});
    const joined = d3.max(tree, (line) => d3.max(line.y)) || 1;
    const x = (i) => left + (i + 0.5) * cell, y = (height) => branches - 4 - (branches - 12) * Math.sqrt(height / joined);
    for (const line of tree) {
      const d = line.x.map((at, i) => `${i ? "L" : "M"}${x(at)},${y(line.y[i])}`).join("");
      svg.append(kit.makeSvg("path", {d, fill: "none", stroke: "var(--line)", "stroke-width": 1.4}));
    }
    const words = (text, attributes) => {
      const node = kit.makeSvg("text", {fill: "currentColor", ...attributes});
      node.textContent = text;
      svg.append(node);
    };
    values.forEach((row, i) => {
      words(kit.short(labels[i], most), {x: left - 6, y: branches + (i + 0.5) * cell, dy: "0.32em", "text-anchor": "end"});
      words(kit.short(labels[i], most), {transform: `translate(${x(i)},${branches + n * cell + 8}) rotate(-50)`, dy: "0.4em", "text-anchor": "end"});
      row.forEach((value, j) => {
        const rect = kit.makeSvg("rect", {
          x: left + j * cell + 1, y: branches + i * cell + 1, width: cell - 2, height: cell - 2, cursor: "pointer",
          fill: value === null ? "var(--wash)" : shade(value), stroke: i === j ? "currentColor" : "none", "stroke-width": 1.6,
        });
        rect.addEventListener("click", () => kit.choose?.[run]?.(labels[i], labels[j]));
        svg.append(rect);
        if (cell > 22) {
          words(value === null ? "–" : value.toFixed(1), {
            x: x(j), y: branches + (i + 0.5) * cell, dy: "0.32em", "text-anchor": "middle", "pointer-events": "none",
            fill: value === null ? "currentColor" : d3.lab(shade(value)).l > 60 ? "#000" : "#fff",
          });
        }
      });
    });
    return svg;
  }

  function barriers({labels, curves, panels, dots}, width) {
    const narrow = width < 640, columns = narrow ? 1 : 3;
    const left = Math.min(narrow ? 130 : 250, 14 + 6.2 * d3.max(labels, (label) => label.length));
    const most = Math.floor((left - 10) / 6);
    const colour = (d) => kit.series(curves.indexOf(d.curve));
    const parts = panels.map((panel, i) => {
      const rows = dots.filter((dot) => dot.panel === panel.name);
      const named = narrow || i === 0;
      const seeds = rows.flatMap((row) => (row.seeds.length > 1 ? kit.finite(row.seeds).map((value) => ({label: row.label, value})) : []));
      const marginLeft = named ? left : 14;
      return Plot.plot({
        width: narrow ? width : (width - left) / columns + (named ? left : 0) - 2, height: 24 * labels.length + 60,
        marginLeft, marginRight: 14, marginTop: 26, marginBottom: 32,
        x: {label: panel.title, labelAnchor: "center", domain: [0, d3.max(kit.finite(rows.flatMap((row) => [row.high, ...row.seeds]))) || 1], nice: true, ticks: 4, grid: true, ...kit.plainTicks},
        y: {domain: labels, label: null, tickSize: 0, tickFormat: named ? (label) => kit.short(label, most) : () => ""},
        marks: [
          panel.floor[0] === null ? null : Plot.rect([panel.floor], {x1: "1", x2: "2", fill: "var(--region)", fillOpacity: 0.16}),
          panel.floor[0] === null ? null : Plot.ruleX([panel.floor[0]], {stroke: "var(--region)", strokeDasharray: "6 3"}),
          Plot.dot(seeds, {x: "value", y: "label", r: 2, fill: "var(--line)", fillOpacity: 0.7, dy: 6}),
          Plot.ruleY(rows.filter((row) => row.low !== null), {x1: "low", x2: "high", y: "label", stroke: colour, strokeWidth: 2.2}),
          Plot.dot(rows.filter((row) => row.mean !== null), {x: "mean", y: "label", symbol: "diamond", r: 4.5, fill: colour}),
        ],
      });
    });
    return narrow ? kit.stacked(parts, width) : beside(parts, width);
  }

  function beside(parts, width) {
    const tall = d3.max(parts, (part) => Number(part.getAttribute("height")));
    const svg = kit.makeSvg("svg", {width, height: tall, viewBox: `0 0 ${width} ${tall}`});
    let left = 0;
    for (const part of parts) {
      part.setAttribute("x", left);
      left += Number(part.getAttribute("width")) + 2;
      svg.append(part);
    }
    return svg;
  }

  function sizes({panels, points}, width) {
    const lines = [...new Set(points.map((point) => point.line))];
    const narrow = width < 640, columns = narrow ? 1 : panels.length;
    const rows = [...new Set(points.map((point) => point.role))].map((role) => {
      const parts = panels.map((panel) => {
        const shown = points.filter((point) => point.panel === panel.name && point.role === role && point.mean !== null);
        return Plot.plot({
          width: Math.floor(width / columns) - 2, height: 210, marginLeft: 46, marginRight: 14, marginTop: 26,
          x: {label: "forget set, %", ...kit.plainTicks},
          y: {label: panel.title, domain: [0, d3.max(shown, (point) => point.high ?? point.mean) || 1], grid: true, ticks: 4, tickSize: 0, labelArrow: "none"},
          title: undefined,
          marks: [
            Plot.line(shown, {x: "size", y: "mean", z: "line", stroke: (d) => kit.series(lines.indexOf(d.line)), strokeWidth: 1.6, strokeDasharray: (d) => (lines.indexOf(d.line) > 5 ? "5 3" : null)}),
            Plot.ruleX(shown.filter((d) => d.low !== null), {x: "size", y1: "low", y2: "high", stroke: (d) => kit.series(lines.indexOf(d.line)), strokeOpacity: 0.6}),
            Plot.dot(shown, {x: "size", y: "mean", fill: (d) => kit.series(lines.indexOf(d.line)), symbol: (d) => ["circle", "square", "diamond", "triangle", "star", "wye"][lines.indexOf(d.line) % 6], r: 4}),
          ],
        });
      });
      const drawn = narrow ? kit.stacked(parts, width) : beside(parts, width);
      return titled(drawn, role, width);
    });
    return kit.stacked([...rows, legend(lines, width)], width);
  }

  function titled(part, title, width) {
    const tall = Number(part.getAttribute("height"));
    const svg = kit.makeSvg("svg", {width, height: tall + 24, viewBox: `0 0 ${width} ${tall + 24}`});
    const words = kit.makeSvg("text", {x: 0, y: 14, fill: "currentColor", "font-weight": 600});
    words.textContent = title;
    part.setAttribute("y", 24);
    svg.append(words, part);
    return svg;
  }

  function legend(lines, width) {
    const columns = Math.max(1, Math.floor(width / 220));
    const tall = 18 * Math.ceil(lines.length / columns) + 6;
    const svg = kit.makeSvg("svg", {width, height: tall, viewBox: `0 0 ${width} ${tall}`});
    lines.forEach((line, i) => {
      const x = 220 * (i % columns), y = 18 * Math.floor(i / columns) + 12;
      svg.append(kit.makeSvg("line", {x1: x, x2: x + 22, y1: y - 4, y2: y - 4, stroke: kit.series(i), "stroke-width": 2, "stroke-dasharray": i > 5 ? "5 3" : "none"}));
      const words = kit.makeSvg("text", {x: x + 28, y, fill: "currentColor"});
      words.textContent = kit.short(line, 30);
      svg.append(words);
    });
    return svg;
  }

  function controls({kinds, dots}, width) {
    const narrow = width < 640, left = narrow ? 130 : 260;
    const means = kinds.map((kind) => ({kind, mean: d3.mean(kit.finite(dots.filter((dot) => dot.kind === kind).map((dot) => dot.value)))}));
    const shown = dots.filter((dot) => dot.value !== null);
    if (!shown.length) return null;
    return Plot.plot({
      width, height: 34 * kinds.length + 50, marginLeft: left, marginRight: 16, marginTop: 6, marginBottom: 34,
      x: {label: "accuracy barrier, points", type: "sqrt", domain: [0, Math.max(1, d3.max(shown, (dot) => dot.value))], ticks: [0, 1, 2, 5, 10, 20, 50, 100].filter((tick) => tick <= Math.max(1, d3.max(shown, (dot) => dot.value))), grid: true, ...kit.plainTicks},
      y: {domain: kinds, label: null, tickSize: 0, tickFormat: (kind) => kit.short(kind, Math.floor((left - 10) / 5.8))},
      marks: [
        Plot.tickX(shown, {x: "value", y: "kind", stroke: "var(--path)", strokeOpacity: 0.35, insetTop: 5, insetBottom: 5}),
        Plot.tickX(means.filter((each) => each.mean !== undefined), {x: "mean", y: "kind", stroke: "currentColor", strokeWidth: 3, insetTop: 2, insetBottom: 2}),
      ],
    });
  }
})();
