"use strict";
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[index].dataset.v ?? row.cells[index].textContent;
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        return x === "" || y === "" ? (x === "") - (y === "") : isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      };
      const rows = [...table.tBodies[0].rows].sort(order);
      table.tBodies[0].append(...(down ? rows.reverse() : rows));
    });
  });
}
const show = () => {
  const run = location.hash && document.getElementById(location.hash.slice(1));
  if (run && run.tagName === "DETAILS") run.open = true;
};
addEventListener("hashchange", show);
show();
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((one) => (one.open = true));
});
addEventListener("afterprint", () => folded.forEach((one) => (one.open = false)));
