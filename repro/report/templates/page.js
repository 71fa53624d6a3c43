"use strict";
const form = document.getElementById("filter");
if (form) {
  const body = document.querySelector(".claims tbody");
  const rows = [...body.rows];
  const verdictOrder = [...form.elements.verdict].map((box) => box.value);
  const show = () => {
    const verdicts = new Set(new FormData(form).getAll("verdict"));
    const section = form.elements.section.value;
    const text = form.elements.text.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !verdicts.has(row.dataset.verdict) || (section && row.dataset.section !== section) ||
        !row.textContent.toLowerCase().includes(text);
      shown += !row.hidden;
    }
    const key = form.elements.order.value === "verdict" ? (row) => verdictOrder.indexOf(row.dataset.verdict) : () => 0;
    body.append(...rows.map((row, index) => [key(row), index, row]).sort((a, b) => a[0] - b[0] || a[1] - b[1])
      .map((entry) => entry[2]));
    form.querySelector("output").textContent = `${shown} of ${rows.length} claims`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
}
const links = new Map([...document.querySelectorAll(".toc a")].map((link) => [link.hash.slice(1), link]));
const sections = [...links.keys()].map((id) => document.getElementById(id));
const contents = document.querySelector(".toc");
const follow = () => {
  const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
  const current = links.get((passed.at(-1) ?? sections[0]).id);
  if (current.ariaCurrent) return;
  for (const link of links.values()) link.ariaCurrent = link === current ? "true" : null;
  contents.scrollTo({ left: current.offsetLeft - contents.clientWidth / 3, top: current.offsetTop - contents.clientHeight / 2 });
};
addEventListener("scroll", follow, { passive: true });
follow();
const hints = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const hint = target.previousElementSibling;
    if (hint?.classList.contains("hint")) hint.hidden = target.scrollWidth <= target.clientWidth + 1;
  }
});
for (const region of document.querySelectorAll(".scroll")) hints.observe(region);
const reveal = () => {
  let element = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (const target = element; element; element = element.parentElement) {
    if (element.tagName === "DETAILS" && !element.open) {
      element.open = true;
      target.scrollIntoView();
    }
  }
};
addEventListener("hashchange", reveal);
reveal();
const dialog = document.getElementById("large");
for (const link of document.querySelectorAll(".enlarge")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const image = link.querySelector("img");
    dialog.querySelector("img").src = image.currentSrc;
    dialog.querySelector("img").alt = image.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
const value = (row, column) => {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace(/,/g, "").replace("−", "-"));
  return [text === "—", Number.isNaN(number) ? Infinity : number, text];
};
const compare = (a, b) => a[1] - b[1] || a[2].localeCompare(b[2], undefined, { numeric: true });
for (const table of document.querySelectorAll("table.data")) {
  const heads = [...table.tHead.querySelectorAll("[data-column]")];
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.ariaSort = sign === 1 ? "ascending" : "descending";
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("heading") && row.cells.length > 1);
        const keyed = rows.map((row) => [value(row, Number(head.dataset.column)), row]);
        keyed.sort(([a], [b]) => a[0] - b[0] || sign * (compare(a, b) || 0));
        body.append(...keyed.map((entry) => entry[1]));
      }
    });
  }
}
