// Losses in the plane of original, control point and pre-unlearned model.
"use strict";
for (const figure of document.querySelectorAll("[data-chart=plane]")) {
  const [, run, name] = /^run-(\d+)-plane-(.+)$/.exec(figure.id);
  const planes = kit.data.runs[run].plane;
  const state = kit.explorers.find((each) => each.run === Number(run));
  const select = document.querySelector(`[data-plane="run-${run}"]`);
  const plane = () => planes[select ? Number(select.value) : 0];
  let dot = null;

  // Between the smallest loss that is drawn and the largest, by factors.
  function levels(values) {
    const top = d3.max(values), low = Math.max(d3.min(values), top / 1000, 1e-6);
    if (!(top > low)) return [low];
    const factor = (top / low) ** (1 / 11);
    return d3.range(11).map((i) => low * factor ** i);
  }

  function draw(width) {
    const {u, v, path, points, retrained, ...losses} = plane();
    const top = d3.max(kit.finite(losses[name]));
    if (top === undefined) return null;
    const values = losses[name].map((value) => value ?? top);
    const [x1, x2, y1, y2] = [u[0], u.at(-1), v[0], v.at(-1)];
    // A contour's values are of the middles of its cells.
    const [du, dv] = [(x2 - x1) / (u.length - 1) / 2, (y2 - y1) / (v.length - 1) / 2];
    const thresholds = levels(values);
    const colours = d3.quantize(d3.interpolateYlGnBu, thresholds.length + 1);
    const curve = path.t.map((t, i) => ({u: path.u[i], v: path.v[i]}));
    const named = Object.entries(points).map(([label, at]) => ({label, u: at[0], v: at[1]}));
    const inside = retrained?.inside;
    const halo = {stroke: "white", strokeOpacity: 0.9};
    const height = Math.min(Math.max(220, (width - 60) * ((y2 - y1) / (x2 - x1)) + 60), width * 1.1);
    const svg = Plot.plot({
      width, height, marginLeft: 44, marginRight: 12, marginTop: 32, marginBottom: 46,
      x: {domain: [x1, x2], label: "distance along the line from original to pre-unlearned", labelAnchor: "center", labelOffset: 34, ...kit.plainTicks},
      y: {domain: [y1, y2], label: "distance across it", ...kit.plainTicks},
      color: {type: "threshold", domain: thresholds, range: colours},
      marks: [
        Plot.contour(values, {width: u.length, height: v.length, x1: x1 - du, x2: x2 + du, y1: y1 - dv, y2: y2 + dv, clip: true, fill: Plot.identity, thresholds: [d3.min(values), ...thresholds], stroke: "#00000030", strokeWidth: 0.5}),
        Plot.line(curve, {x: "u", y: "v", strokeWidth: 5, ...halo}),
        Plot.line([points.original, points["pre-unlearned"]], {strokeWidth: 4, ...halo}),
        Plot.line([points.original, points["pre-unlearned"]], {stroke: "#5c5c5c", strokeWidth: 2}),
        Plot.line(curve, {x: "u", y: "v", stroke: "#0072b2", strokeWidth: 2.5}),
        Plot.dot(named, {x: "u", y: "v", r: 4.5, fill: "black", stroke: "white", strokeWidth: 1.5}),
        inside ? Plot.dot([retrained.at], {symbol: "times", r: 6, stroke: "white", strokeWidth: 5}) : null,
        inside ? Plot.dot([retrained.at], {symbol: "times", r: 6, stroke: "#d55e00", strokeWidth: 3}) : null,
        Plot.text(named, {x: "u", y: "v", text: "label", dy: -13, fill: "black", stroke: "white", strokeWidth: 4, fontWeight: 600, textAnchor: (d) => (d.u > (x1 + x2) / 2 ? "end" : "start")}),
      ],
    });
    key(svg, width, thresholds, colours);
    return svg;
  }

  // What the colours are, above the picture.
  function key(svg, width, thresholds, colours) {
    const left = width - 12 - 11 * colours.length;
    const words = (text, attributes) => {
      const node = kit.makeSvg("text", {y: 14, fill: "currentColor", ...attributes});
      node.textContent = text;
      svg.append(node);
    };
    colours.forEach((fill, i) => svg.append(kit.makeSvg("rect", {x: left + 11 * i, y: 5, width: 11, height: 10, fill})));
    words(`${thresholds[0].toPrecision(1)} nats`, {x: left - 5, "text-anchor": "end"});
    words(thresholds.at(-1).toPrecision(2), {x: left + 11 * colours.length - 1, y: 25, "text-anchor": "end"});
  }

  function drawn(svg) {
    const x = svg.scale?.("x"), y = svg.scale?.("y");
    if (!x) return;
    const mark = kit.makeSvg("circle", {r: 6, fill: "#0072b2", stroke: "white", "stroke-width": 2});
    svg.append(mark);
    dot = () => {
      const {path} = plane();
      const i = kit.nearest(path.t, state?.t ?? 0);
      mark.setAttribute("cx", x.apply(path.u[i]));
      mark.setAttribute("cy", y.apply(path.v[i]));
    };
    dot();
  }

  const place = figure.querySelector(".chart");
  const redraw = kit.mount(place, draw, drawn);
  select?.addEventListener("change", redraw);
  state?.views.push(() => dot?.());
}
