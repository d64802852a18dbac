// What all charts share: the data of the page, mounting, texts.
"use strict";
const kit = (() => {
  document.documentElement.classList.add("js");
  const data = JSON.parse(document.getElementById("data").textContent);

  function make(tag, attributes = {}, ...content) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...content);
    return node;
  }

  function makeSvg(tag, attributes = {}) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }

  // Charts are drawn as wide as their place, again when that changes, and first when it is seen: a closed run has no width.
  const charts = new Map();
  const observer = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const chart = charts.get(entry.target);
      const width = Math.floor(entry.contentRect.width);
      if (width > 0 && width !== chart.width) {
        chart.width = width;
        redraw(entry.target);
      }
    }
  });

  function redraw(place) {
    const chart = charts.get(place);
    if (!chart || !chart.width) return;
    const drawn = chart.draw(chart.width);
    if (drawn === null) {
      place.replaceChildren(make("p", {class: "nothing"}, "Nothing finite to draw."));
      return;
    }
    // The picture has one label; those of its parts, as "rect", would only be read beside it.
    for (const part of drawn.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
    drawn.setAttribute("role", "img");
    drawn.setAttribute("aria-label", place.dataset.label);
    place.replaceChildren(drawn);
    chart.drawn?.(drawn);
  }

  // draw(width) gives an SVG element or null; drawn(svg) is told of it when it is in its place.
  function mount(place, draw, drawn) {
    charts.set(place, {draw, drawn, width: 0});
    const width = Math.floor(place.getBoundingClientRect().width);
    if (width > 0) {
      charts.get(place).width = width;
      redraw(place);
    }
    observer.observe(place);
    return () => redraw(place);
  }

  const finite = (values) => values.filter((value) => value !== null && Number.isFinite(value));
  const fixed = (value, decimals) => (value === null || value === undefined ? "–" : value.toFixed(decimals));
  // Without its middle: names differ at their end as well.
  function short(text, most) {
    if (text.length <= most) return text;
    const first = Math.ceil(0.6 * (most - 1));
    return `${text.slice(0, first)}…${text.slice(text.length - Math.max(most - 1 - first, 1))}`;
  }
  const series = (i) => `var(--series-${i % 7})`;
  const nearest = (values, value) => d3.leastIndex(values, (a, b) => Math.abs(a - value) - Math.abs(b - value));
  const plainTicks = {tickSize: 4, labelArrow: "none"};

  // A live region is told when its reader has stopped moving.
  function announcer(place) {
    let waiting = 0;
    return (text) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => (place.textContent = text), 350);
    };
  }

  // Definitions on hover and focus.
  const says = document.getElementById("says");
  function explain(event) {
    const word = event.target.closest?.("[data-says]");
    says.hidden = !word;
    if (!word) return;
    says.textContent = word.dataset.says;
    const box = word.getBoundingClientRect();
    says.style.left = `${Math.max(8, Math.min(box.left, innerWidth - says.offsetWidth - 8))}px`;
    const below = box.bottom + 6;
    says.style.top = `${below + says.offsetHeight > innerHeight ? box.top - says.offsetHeight - 6 : below}px`;
  }
  for (const word of document.querySelectorAll("[data-says]")) word.removeAttribute("title");
  document.addEventListener("mouseover", explain);
  document.addEventListener("focusin", explain);
  document.addEventListener("scroll", () => (says.hidden = true), {passive: true});
  document.addEventListener("keydown", (event) => event.key === "Escape" && (says.hidden = true));

  // What can be copied.
  for (const place of document.querySelectorAll(".copy")) {
    const button = make("button", {type: "button"}, "Copy");
    button.addEventListener("click", async () => {
      const text = place.querySelector("pre");
      try {
        await navigator.clipboard.writeText(text.textContent.trim());
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        button.textContent = "Selected: copy it with the keyboard";
      }
      setTimeout(() => (button.textContent = "Copy"), 2500);
    });
    place.append(button);
  }

  // A link into a run that is closed opens it.
  function open() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  }
  addEventListener("hashchange", open);
  open();

  return {data, make, makeSvg, mount, finite, fixed, short, series, nearest, plainTicks, announcer};
})();
