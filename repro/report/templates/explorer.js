"use strict";
{
  const MOST_CURVES = 24; // more cannot be told apart
  const DASHES = [[], [8, 4], [2, 3]]; // one for each round of the colours
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // distances of the epochs on the axis
  const explorer = document.getElementById("explorer");
  const table = document.getElementById("runs-table");
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const [controls, filters] = explorer.querySelectorAll("form");
  const chart = explorer.querySelector(".chart");
  const reading = explorer.querySelector("output.unseen");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const titles = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const chosen = new Set(data.shown);
  let plot = null;

  // The rows of the table, in the order of the runs: a box to choose each, and what the filters compare.
  const rows = data.runs.map((run, index) => {
    const row = table.tBodies[0].rows[index];
    const box = document.createElement("input");
    const label = document.createElement("label");
    box.type = "checkbox";
    box.checked = chosen.has(index);
    box.addEventListener("change", () => {
      box.checked ? chosen.add(index) : chosen.delete(index);
      draw();
    });
    label.append(box, ...row.cells[0].childNodes);
    row.cells[0].append(label);
    return { row, box, text: row.textContent.toLowerCase(), cells: [...row.cells].map((cell) => cell.textContent.trim()) };
  });
  const menus = [...filters.querySelectorAll("select")];
  for (const menu of menus) {
    const values = new Set(rows.map((each) => each.cells[titles.indexOf(menu.name)]));
    menu.append(...[...values].sort().map((value) => new Option(value)));
    menu.parentElement.hidden = values.size < 2;
  }
  controls.elements.metric.append(...data.metrics.map((title, index) => new Option(title, index)));
  controls.elements.metric.selectedIndex =
    Math.max(0, data.metrics.findIndex((_, metric) => data.shown.some((index) => data.runs[index].curves[metric])));

  function filter() {
    const text = filters.elements.text.value.trim().toLowerCase();
    for (const { row, text: content, cells } of rows) {
      row.hidden = !content.includes(text) ||
        menus.some((menu) => menu.value && cells[titles.indexOf(menu.name)] !== menu.value);
    }
    const shown = rows.filter((each) => !each.row.hidden).length;
    filters.querySelector("output").textContent = `${shown} of ${rows.length} runs`;
  }

  function draw() {
    const metric = Number(controls.elements.metric.value);
    const title = data.metrics[metric];
    const present = [...chosen].filter((index) => data.runs[index].curves[metric]);
    const drawn = present.slice(0, MOST_CURVES);
    const missing = chosen.size - present.length;
    controls.querySelector("output").textContent =
      `${drawn.length} of ${chosen.size} curves` + (missing ? `; ${missing} without this value` : "") +
      (present.length > MOST_CURVES ? `; at most ${MOST_CURVES} are drawn` : "");
    plot?.destroy();
    plot = null;
    if (!drawn.length) return;
    const style = getComputedStyle(document.documentElement);
    const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
    const font = "12px system-ui, sans-serif";
    const lines = { stroke: line, width: 1 };
    const axis = { stroke: ink, font, labelFont: font, labelSize: 18, grid: lines, ticks: lines };
    const series = drawn.map((index, position) => ({
      label: data.runs[index].name,
      stroke: data.colours[position % data.colours.length],
      dash: DASHES[Math.floor(position / data.colours.length) % DASHES.length],
      width: 2,
      points: { show: data.epochs[data.runs[index].epochs].length === 1 },
      value: (_, value) => value ?? "–",
    }));
    const tables = drawn.map((index) => [data.epochs[data.runs[index].epochs], data.runs[index].curves[metric]]);
    const options = {
      ...size(),
      series: [{ label: "epoch", value: (_, value) => value ?? "–" }, ...series],
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, high === null || high === 0 ? 1 : high * 1.05] } },
      axes: [{ ...axis, label: "epoch", size: 32, incrs: WHOLE }, { ...axis, label: title }],
      cursor: { focus: { prox: 24 }, drag: { x: false, y: false } },
      focus: { alpha: 0.35 },
    };
    plot = new uPlot(options, uPlot.join(tables), chart);
  }

  function size() {
    const { paddingLeft, paddingRight } = getComputedStyle(chart);
    return { width: chart.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight), height: 340 };
  }

  const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  chart.addEventListener("keydown", (event) => {
    if (!plot || !(event.key in STEPS)) return;
    event.preventDefault();
    const epochs = plot.data[0];
    const start = plot.cursor.idx ?? (STEPS[event.key] > 0 ? -1 : epochs.length);
    const index = Math.min(Math.max(start + STEPS[event.key], 0), epochs.length - 1);
    plot.setCursor({ left: plot.valToPos(epochs[index], "x"), top: 0 });
    const values = plot.series.slice(1).map((each, k) => `${each.label} ${plot.data[k + 1][index] ?? "no value"}`);
    reading.textContent = `Epoch ${epochs[index]}: ${values.join("; ")}`;
  });
  controls.addEventListener("input", draw);
  filters.addEventListener("input", filter);
  for (const form of [controls, filters]) form.addEventListener("submit", (event) => event.preventDefault());
  controls.elements.clear.addEventListener("click", () => choose(() => false));
  filters.elements.add.addEventListener("click", () => choose((each) => each.box.checked || !each.row.hidden));
  function choose(wanted) {
    rows.forEach((each, index) => {
      each.box.checked = wanted(each);
      each.box.checked ? chosen.add(index) : chosen.delete(index);
    });
    draw();
  }
  dark.addEventListener("change", draw);
  new ResizeObserver(() => plot?.setSize(size())).observe(chart);

  explorer.hidden = false;
  document.querySelector("details.curves").open = false;
  filter();
  draw();
}
