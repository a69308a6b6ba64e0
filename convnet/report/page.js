"use strict";
// The page reads without this: it adds values under the pointer, sorting, zoom, and the live view.

document.documentElement.classList.add("scripted");

for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg");
  const cursor = chart.querySelector(".cursor");
  const said = chart.querySelector(".readout");
  const lines = [...chart.querySelectorAll("[data-points]")].map((line) => ({
    label: line.dataset.label,
    points: JSON.parse(line.dataset.points),
  }));
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const near = lines.map(({ label, points }) => {
      const best = points.reduce((a, b) => (Math.abs(b[2] - at) < Math.abs(a[2] - at) ? b : a));
      return { label, best };
    });
    if (!near.length) return;
    const place = near[0].best;
    cursor.setAttribute("x1", place[2]);
    cursor.setAttribute("x2", place[2]);
    cursor.setAttribute("visibility", "visible");
    const values = near.map(({ label, best }) => `${label} ${best[1]}`).join(" · ");
    said.textContent = `${chart.dataset.unit} ${place[0]}: ${values}`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    said.textContent = "";
  });
}

for (const table of document.querySelectorAll(".sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  const sort = (column) => {
    const head = heads[column];
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const order = (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
    const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? order(b, a) : order(a, b)));
    table.tBodies[0].append(...rows);
  };
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(column));
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort(column));
  });
}

for (const matrix of document.querySelectorAll(".zoomable")) {
  const view = matrix.querySelector(".view");
  const images = [...view.querySelectorAll("img")];
  const [overview, exact] = [images[0], images.at(-1)];
  const said = matrix.querySelector(".readout");
  const { classes, cells } = JSON.parse(matrix.querySelector("script").textContent);
  const counts = new Map();
  const totals = new Array(classes.length).fill(0);
  cells[0].forEach((row, place) => {
    counts.set(row * classes.length + cells[1][place], cells[2][place]);
    totals[row] += cells[2][place];
  });
  let zoom = 1;
  const set = (next) => {
    const middle = [
      (view.scrollLeft + view.clientWidth / 2) / zoom,
      (view.scrollTop + view.clientHeight / 2) / zoom,
    ];
    zoom = Math.min(Math.max(next, 1), Math.max(1, classes.length / 12));
    for (const image of images) image.style.width = `${100 * zoom}%`;
    if (overview !== exact) {
      overview.hidden = zoom > 2;
      exact.hidden = zoom <= 2;
    }
    view.scrollLeft = middle[0] * zoom - view.clientWidth / 2;
    view.scrollTop = middle[1] * zoom - view.clientHeight / 2;
  };
  const steps = { in: () => set(zoom * 1.6), out: () => set(zoom / 1.6), fit: () => set(1) };
  for (const button of matrix.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => steps[button.dataset.zoom]());
  const wheel = (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    set(zoom * Math.exp(-event.deltaY / 200));
  };
  view.addEventListener("wheel", wheel, { passive: false });
  const read = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const cell = (at, start, size) =>
      Math.min(classes.length - 1, Math.max(0, Math.floor(((at - start) / size) * classes.length)));
    const row = cell(event.clientY, box.top, box.height);
    const column = cell(event.clientX, box.left, box.width);
    const count = counts.get(row * classes.length + column) ?? 0;
    const share = totals[row] ? ((100 * count) / totals[row]).toFixed(0) : 0;
    said.textContent = `${classes[row]} taken for ${classes[column]}: ${count} (${share} %)`;
  };
  for (const image of images) {
    image.addEventListener("pointermove", read);
    image.addEventListener("pointerdown", read);
  }
}

const live = document.body.dataset.live;
if (live) {
  const state = async () => (await fetch(live, { cache: "no-store" })).text();
  const shown = live.split("?")[1];
  setInterval(async () => {
    try {
      if ((await state()) !== shown) location.reload();
    } catch {
      // the server has ended: what is shown stays
    }
  }, 2000);
}
