"use strict";
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
document.body.classList.add("scripted");
byId("print")?.addEventListener("click", () => window.print());

// The leaderboard: a body of rows for each line, with its seeds; sorted, filtered and unfolded as a whole.
const board = byId("board");
if (board) {
  const heads = [...board.tHead.rows[0].cells];
  const bodies = () => [...board.tBodies];
  const key = (body, i) => {
    const cell = body.rows[0].cells[i];
    return i ? parseFloat(cell.dataset.value) : cell.textContent;
  };
  const order = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  const sort = (head, i) => {
    const state = head.getAttribute("aria-sort");
    const up = state === "none" ? i === 0 : state === "descending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const compare = (x, y) => {
      const [a, b] = [key(x, i), key(y, i)];
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return up ? order(a, b) : order(b, a);
    };
    board.append(...bodies().sort(compare));
  };
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => sort(head, i)));

  const filter = byId("filter");
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase().trim();
    bodies().forEach((body) => (body.hidden = !body.textContent.toLowerCase().includes(wanted)));
    const left = bodies().filter((body) => !body.hidden).length;
    byId("shown").textContent = filter.value ? `${left} of ${bodies().length} lines` : "";
  });

  const unfold = (button, open) => {
    button.setAttribute("aria-expanded", open);
    all("tr.seed", button.closest("tbody")).forEach((row) => (row.hidden = !open));
  };
  const isOpen = (button) => button.getAttribute("aria-expanded") === "true";
  all("button.seeds", board).forEach((button) =>
    button.addEventListener("click", () => unfold(button, !isOpen(button))),
  );
  const every = byId("unfold");
  every?.addEventListener("click", () => {
    const open = !isOpen(every);
    every.setAttribute("aria-expanded", open);
    all("button.seeds", board).forEach((button) => unfold(button, open));
  });
  const tasks = document.querySelector("[data-show=tasks]");
  tasks.addEventListener("change", () => board.classList.toggle("compact", !tasks.checked));
}

// Legends hide and show a series in every figure.
all(".legend button").forEach((button) =>
  button.addEventListener("click", () => {
    const name = button.dataset.series;
    const on = button.getAttribute("aria-pressed") !== "true";
    const meant = (part) => name === undefined || part.dataset.series === name;
    all(".legend button").filter(meant).forEach((other) => other.setAttribute("aria-pressed", on));
    all("g[data-series]").filter(meant).forEach((part) => (part.style.display = on ? "" : "none"));
    all("[data-every]").forEach((other) => {
      const own = all("[data-series]", other.closest("ul"));
      other.setAttribute("aria-pressed", own.every((one) => one.getAttribute("aria-pressed") === "true"));
    });
  }),
);

// Lost answers: of one run, or of any.
const lost = byId("lost");
lost?.addEventListener("change", () => {
  const cards = all(".card");
  const meant = (card) => !lost.value || card.dataset.lost.split(" ").includes(lost.value);
  cards.forEach((card) => (card.hidden = !meant(card)));
  const left = cards.filter((card) => !card.hidden).length;
  byId("lost-shown").textContent = lost.value ? `${left} of ${cards.length} documents` : "";
  if (lost.value && byId("more-lost")) byId("more-lost").open = true;
});

// Figures as files: the drawing with its colors written out, in light colors whatever the page has.
const STYLES = ["fill", "stroke", "stroke-width", "stroke-dasharray", "fill-opacity", "stroke-opacity", "opacity"];
const TEXT_STYLES = [...STYLES, "font-size", "font-weight", "text-anchor"];
const save = (name, type, text) => {
  const link = document.createElement("a");
  link.download = name;
  link.href = `data:${type};charset=utf-8,${encodeURIComponent(text)}`;
  link.click();
};
const drawing = (svg) => {
  const copy = svg.cloneNode(true);
  const parts = all("*", copy);
  document.documentElement.classList.add("light");
  all("*", svg).forEach((part, i) => {
    const style = getComputedStyle(part);
    const names = part.tagName === "text" ? TEXT_STYLES : STYLES;
    names.forEach((name) => parts[i].setAttribute(name, style.getPropertyValue(name)));
    if (style.display === "none") parts[i].setAttribute("display", "none");
    parts[i].removeAttribute("class");
  });
  document.documentElement.classList.remove("light");
  const { width, height } = svg.viewBox.baseVal;
  copy.setAttribute("xmlns", svg.namespaceURI);
  copy.setAttribute("font-family", "Helvetica, Arial, sans-serif"); // system-ui is a browser's name
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  return new XMLSerializer().serializeToString(copy);
};
// No spreadsheet takes a cell for a formula; a number stays one.
const harmless = (text) => (/^([=@\t\r]|[+-](?![\d.]+$))/.test(text) ? `'${text}` : text);
const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const csv = (table) =>
  [...table.rows].map((row) => [...row.cells].map((cell) => quoted(harmless(cell.textContent))).join(",")).join("\n") + "\n";
all("[data-save]").forEach((button) =>
  button.addEventListener("click", () => {
    const figure = button.closest("figure");
    const name = figure.querySelector("h3").textContent.replace(/[^\w.-]+/g, "_");
    const shown = all("svg[role=img]", figure).find((svg) => svg.clientWidth);
    if (button.dataset.save === "SVG") save(`${name}.svg`, "image/svg+xml", drawing(shown));
    else save(`${name}.csv`, "text/csv", csv(figure.querySelector(".numbers table")));
  }),
);
