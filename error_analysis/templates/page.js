"use strict";
// Puts the tables into the page and opens what its address names.
{
  const split = new Split(misrank.data.split);
  const tables = new Map();
  for (const root of document.querySelectorAll("[data-table]")) {
    tables.set(root.dataset.table, new DataTable(root, misrank.data.tables[root.dataset.table], split));
  }
  const report = document.getElementById("report");
  const view = new QueryView(document.getElementById("query"), split, misrank.data.retrieved, tables);
  const title = document.title;
  let left = 0; // how far the report was scrolled

  function reveal(target) {
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  }

  function open() {
    const wanted = view.read(location.hash);
    if (wanted && !report.hidden) left = scrollY;
    const came = report.hidden;
    report.hidden = wanted !== null;
    view.root.hidden = wanted === null;
    document.title = wanted ? `${wanted.id} \u00b7 ${title}` : title;
    if (wanted) {
      view.show(wanted);
    } else {
      const target = document.getElementById(location.hash.slice(1));
      if (came && (location.hash || "#overview") === view.home) scrollTo(0, left);
      else if (target) reveal(target);
    }
  }

  addEventListener("hashchange", open);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#query="]');
    if (!link || report.hidden) return;
    view.home = location.hash || "#overview";
    const table = tables.get(link.closest("[data-table]")?.dataset.table);
    view.trail = table ? { direction: table.data.direction, places: table.queries() } : { direction: "", places: [] };
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, .scroll")) return;
    const key = { ArrowLeft: "[rel=prev]", ArrowRight: "[rel=next]", Escape: ".back" }[event.key];
    if (key && !view.root.hidden) view.root.querySelector(key)?.click();
  });
  open();

  const contents = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const link = contents.get(entry.target.id);
      if (entry.isIntersecting) link?.setAttribute("aria-current", "true");
      else link?.removeAttribute("aria-current");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  document.querySelectorAll("#report section").forEach((section) => seen.observe(section));
}
