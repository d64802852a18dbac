// At the slider's t: both distributions of confidence, and what pictures are taken for.
"use strict";
for (const state of kit.explorers) {
  const views = kit.data.runs[state.run].views;
  if (!views) continue;
  // Of all seeds, pictures are those of the first.
  const view = () => views.find((each) => each.seed === state.along.seeds[state.seed ?? 0]) ?? views[0];

  const chart = document.querySelector(`#run-${state.run}-distributions .chart`);
  const highest = d3.max(views, (each) => d3.max([...each.forget, ...each.validation].flat()));
  const show = kit.mount(chart, (width) => {
    const of = state.seed === null ? views : views.filter((each) => each.seed === state.along.seeds[state.seed]);
    if (!of.length) return null;
    const bins = d3.pairs(of[0].bins);
    const share = (name, bin) => d3.mean(of, (each) => each[name][kit.nearest(each.t, state.t)][bin]);
    const rows = bins.map(([from, to], i) => ({from, to, forget: share("forget", i), validation: share("validation", i)}));
    const steps = rows.flatMap((row) => [{at: row.from, share: row.validation}, {at: row.to, share: row.validation}]);
    return Plot.plot({
      width, height: 250, marginLeft: 44, marginRight: 12, marginTop: 28,
      x: {domain: [rows[0].from, rows.at(-1).to], label: "confidence", ...kit.plainTicks},
      y: {domain: [0, highest], type: "sqrt", grid: true, label: "share of the examples, square-root scale", tickFormat: ".0%", ticks: [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1].filter((tick) => tick <= highest), tickSize: 0, labelArrow: "none"},
      marks: [
        Plot.rectY(rows, {x1: "from", x2: "to", y1: 0, y2: "forget", fill: "var(--forget)", fillOpacity: 0.75, insetLeft: 0.5, insetRight: 0.5}),
        Plot.line(steps, {x: "at", y: "share", stroke: "var(--unseen)", strokeWidth: 1.8}),
      ],
    });
  });
  state.views.push(show);

  const place = document.querySelector(`#run-${state.run}-pictures .pictures`);
  if (!place) continue;
  const whose = document.querySelector(`#run-${state.run}-pictures .whose`);
  let shown = null, cards = [];

  function fill(of) {
    cards = of.examples.map((example) => {
      const said = kit.make("p", {class: "said"});
      const image = example.image
        ? kit.make("img", {src: example.image, alt: `forget example ${example.index}, ${kit.short(example.label, 60)}`, width: 48, height: 48})
        : kit.make("div", {class: "blank"});
      const strip = bars(of, example);
      const words = kit.make("div", {}, kit.make("p", {}, `is ${kit.short(example.label, 24)}`), said);
      if (example.picked) words.append(kit.make("p", {class: "picked"}, {random: "at random", fallen: "falls most"}[example.picked] ?? ""));
      return {example, said, strip, card: kit.make("div", {class: "picture"}, image, words, strip.svg)};
    });
    place.replaceChildren(...cards.map(({card}) => card));
    whose.textContent = of.seed;
  }

  function bars(of, example) {
    const n = of.t.length, height = 28, each = 100 / n;
    const svg = kit.makeSvg("svg", {viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true"});
    example.confidence.forEach((confidence, i) => {
      const tall = Math.max(1, (confidence ?? 0) * (height - 3));
      const right = example.right[i];
      svg.append(kit.makeSvg("rect", {
        x: i * each + 0.08 * each, width: 0.84 * each, y: height - tall, height: tall,
        fill: right ? "var(--path)" : "var(--paper)", stroke: right ? "none" : "var(--retrained)", "stroke-width": 1, "vector-effect": "non-scaling-stroke",
      }));
    });
    const mark = kit.makeSvg("rect", {y: -1, height: height + 3, width: each, fill: "none", stroke: "var(--ink)", "stroke-width": 1.2, "vector-effect": "non-scaling-stroke"});
    svg.append(mark);
    return {svg, move: (i) => mark.setAttribute("x", i * each)};
  }

  state.views.push((t) => {
    const of = view();
    if (shown !== of) fill((shown = of));
    const i = kit.nearest(of.t, t);
    for (const {example, said, strip} of cards) {
      const confidence = example.confidence[i];
      said.textContent = `${example.right[i] ? "✓" : "✗"} ${kit.short(example.prediction[i], 24)} ${confidence === null ? "" : `${Math.round(100 * confidence)} %`}`;
      said.classList.toggle("wrong", !example.right[i]);
      strip.move(i);
    }
  });
}
