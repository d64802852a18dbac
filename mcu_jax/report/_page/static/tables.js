// Tables sort by any column, and that of several runs is filtered.
"use strict";
(() => {
  // The mean in `7.7 ±4.0`; what has no number goes last whichever way.
  function value(cell) {
    const number = /[-+]?\d+(\.\d+)?(e[-+]?\d+)?/.exec(cell.textContent.replace("−", "-"));
    return number ? Number(number[0]) : null;
  }

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, i) => ({row, i, value: value(row.cells[column]), text: row.cells[column].textContent}));
    const numbers = column > 0 && rows.some((row) => row.value !== null);
    const sign = descending ? -1 : 1;
    rows.sort((a, b) => {
      if (!numbers) return sign * a.text.localeCompare(b.text, "en", {numeric: true}) || a.i - b.i;
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.i - b.i;
      return sign * (a.value - b.value) || a.i - b.i;
    });
    body.append(...rows.map(({row}) => row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const words = head.querySelector(".head");
      const button = kit.make("button", {type: "button", class: "head", "data-says": words.dataset.says});
      button.append(...words.childNodes);
      words.replaceWith(button);
      button.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending);
      });
    });
  }
})();
