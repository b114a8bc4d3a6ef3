"use strict";
document.querySelectorAll("th button").forEach((button) => {
  button.addEventListener("click", () => {
    const header = button.parentElement;
    const body = header.closest("table").tBodies[0];
    const column = header.cellIndex;
    const upward = header.getAttribute("aria-sort") !== "ascending";
    const value = (row) => row.cells[column].dataset.sort;
    const compare = (left, right) => {
      const [x, y] = [value(left), value(right)];
      if (x === "" || y === "") return (x === "") - (y === ""); // not measured: last in both directions
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return upward ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
    header.parentElement.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", upward ? "ascending" : "descending");
  });
});
const dialog = document.querySelector("dialog");
document.querySelectorAll("a.zoom").forEach((link) => {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab shows the file
    event.preventDefault();
    const image = link.querySelector("img");
    Object.assign(dialog.querySelector("img"), { src: image.src, alt: image.alt });
    dialog.showModal();
  });
});
dialog.addEventListener("click", () => dialog.close());
