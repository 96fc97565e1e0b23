"use strict";

const numberOf = (text) => {
  const found = text.replaceAll(",", "").match(/^[+-]?[\d.]+/);
  return found ? Number(found[0]) : NaN;
};

function sortBy(table, column, falling) {
  const body = table.tBodies[0];
  const text = (row) => row.cells[column].textContent.trim();
  const order = (a, b) => {
    const [one, other] = [numberOf(text(a)), numberOf(text(b))];
    if (Number.isNaN(one) || Number.isNaN(other)) {
      if (Number.isNaN(one) && Number.isNaN(other)) return text(a).localeCompare(text(b)) * (falling ? -1 : 1);
      return Number.isNaN(one) ? 1 : -1; // what has no number stands last, whichever way is up
    }
    return (one - other) * (falling ? -1 : 1);
  };
  body.append(...[...body.rows].sort(order));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sortBy(table, column, falling);
    });
  });
}

for (const section of document.querySelectorAll("section[data-comparison]")) {
  const boxes = [...section.querySelectorAll("input[data-toggles]")];
  const state = section.querySelector(".shown");
  const show = () => {
    const shown = new Map(boxes.map((box) => [box.dataset.toggles, box.checked]));
    for (const part of section.querySelectorAll("[data-arm], [data-group]")) {
      const visible = shown.get(part.dataset.arm ?? part.dataset.group) ?? true;
      part.toggleAttribute("hidden", !visible);
      if (part.dataset.group !== undefined) part.style.display = visible ? "" : "none";
    }
    state.textContent = `${boxes.filter((box) => box.checked).length} of ${boxes.length} arms shown`;
  };
  boxes.forEach((box) => box.addEventListener("change", show));
  for (const button of section.querySelectorAll("button[data-all]")) {
    button.addEventListener("click", () => {
      boxes.forEach((box) => { box.checked = button.dataset.all === "true"; });
      show();
    });
  }
  show(); // a browser may have kept the boxes of an earlier visit
}
