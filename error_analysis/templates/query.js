"use strict";
// The page of one query, which #query=<direction>/<id> opens: what every model retrieved, side by side.
class QueryView {
  constructor(root, split, retrieved, tables) {
    Object.assign(this, { root, split, tables });
    this.lists = Object.fromEntries(Object.entries(retrieved).map(([direction, models]) => [direction, models.map((model) => ({
      name: model.model,
      shown: model.shown,
      items: unpack(model.items, Uint32Array),
      scores: unpack(model.scores, Float32Array),
      ranks: unpack(model.ranks, Float32Array),
      truth: unpack(model.truth, Float32Array),
    }))]));
    this.places = Object.fromEntries(Object.entries(split.ids).map(([kind, ids]) => [kind, new Map(ids.map((id, place) => [id, place]))]));
    this.trail = { direction: "", places: [] }; // the list the reader came from
  }

  // The direction and place that an address names, or null.
  read(hash) {
    const found = /^#query=(i2t|t2i)\/(.*)$/.exec(hash);
    if (!found) return null;
    let id = found[2];
    try { id = decodeURIComponent(id); } catch { /* not written by this page */ }
    return { direction: found[1], place: this.places[QUERY_KIND[found[1]]].get(id), id };
  }

  show({ direction, place, id }) {
    const kind = QUERY_KIND[direction];
    const title = element("h1", { tabIndex: -1 });
    if (place === undefined) {
      title.append(`No ${NOUN[kind]} with this id`);
      this.root.replaceChildren(this.back(), title, element("p", { className: "id" }, id));
    } else {
      title.append(this.split.show(kind, place));
      const about = element("div", { className: `about ${kind}` }, element("div", {}, title, element("p", { className: "id" }, id)), this.truths(kind, place));
      const models = this.lists[direction].map((model, number) => this.model(model, number, kind, place));
      this.root.replaceChildren(this.bar(direction, place), about, element("div", { className: "models" }, ...models), this.said(direction, place));
    }
    title.focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  back() {
    return element("a", { href: this.home ?? "#overview", className: "back" }, "\u2190 Report");
  }

  bar(direction, place) {
    const places = this.trail.direction === direction && this.trail.places.includes(place) ? this.trail.places : this.split.truths[QUERY_KIND[direction]].map((_, at) => at);
    const at = places.indexOf(place);
    const step = (label, to, key) => {
      const target = places[to];
      if (target === undefined) return element("span", { className: "step", "aria-disabled": "true" }, label);
      const href = address(direction, this.split.ids[QUERY_KIND[direction]][target]);
      return element("a", { className: "step", href, rel: key, "aria-keyshortcuts": { prev: "ArrowLeft", next: "ArrowRight" }[key] }, label);
    };
    const count = element("span", { className: "count" }, `${number(at + 1, 0)} of ${number(places.length, 0)}`);
    return element("nav", { className: "bar", "aria-label": "Queries" }, this.back(), step("\u2039 Previous", at - 1, "prev"), count, step("Next \u203a", at + 1, "next"));
  }

  truths(kind, place) {
    const items = this.split.truths[kind][place].map((item) => element("li", { className: "right" }, tick(), this.split.link(OTHER[kind], item)));
    return element("div", {}, element("h2", {}, "Truth"), element("ul", { className: `entries ${OTHER[kind]}` }, ...items));
  }

  model(model, number_, kind, place) {
    const truths = new Set(this.split.truths[kind][place]);
    const rank = model.ranks[place];
    const decimals = scoreDecimals(model.scores[place * model.shown]);
    const items = [];
    for (let at = 0; at < model.shown; at += 1) {
      const item = model.items[place * model.shown + at];
      const score = number(model.scores[place * model.shown + at], decimals);
      items.push(this.retrieved(at, item, score, truths.has(item), OTHER[kind]));
    }
    const name = element("h2", {}, element("span", { className: `swatch m${number_ % 6}` }), model.name);
    const stands = element("p", { className: "stands" }, "Truth at rank ", element("strong", {}, number(rank + 1, rank % 1 ? 1 : 0)), ` of ${number(this.split.ids[OTHER[kind]].length, 0)}`);
    if (rank >= model.shown) stands.append(`, score ${number(model.truth[place], decimals)}`);
    return element("section", {}, name, stands, element("ol", { className: `entries ${OTHER[kind]}` }, ...items));
  }

  retrieved(at, item, score, right, kind) {
    const words = element("span", { className: "place" }, String(at + 1));
    return element("li", { className: right ? "right" : "" }, words, right ? tick() : null, this.split.link(kind, item), element("span", { className: "score" }, element("span", { className: "unseen" }, "score "), score));
  }

  // What the tables of the report say of this query, but for those that list all queries.
  said(direction, place) {
    const found = [];
    for (const [name, table] of this.tables) {
      const { columns, cells } = table.data;
      const at = table.data.direction === direction && !name.startsWith("queries-") ? columns.findIndex((column) => column.kind === "query") : -1;
      const rows = at < 0 ? [] : cells[at].flatMap((cell, row) => (cell === place ? [row] : []));
      if (!rows.length) continue;
      const id = table.root.parentElement.id;
      const title = element("a", { href: `#${id}` }, document.getElementById(`${id}-title`).textContent);
      const lines = rows.map((row) => element("li", {}, ...columns.flatMap((column, index) => (column.of ? [] : [element("span", {}, `${column.name} `, element("strong", {}, format(cells[index][row], column)))]))));
      found.push(element("li", {}, title, element("ul", {}, ...lines)));
    }
    return found.length ? element("section", { className: "told" }, element("h2", {}, "What the report says of it"), element("ul", {}, ...found)) : element("div");
  }
}

function tick() {
  return element("span", { className: "tick" }, element("span", { "aria-hidden": "true" }, "\u2713"), element("span", { className: "unseen" }, "truth: "));
}

// Four digits of the best score of a list.
function scoreDecimals(best) {
  return best === 0 ? 4 : Math.min(8, Math.max(0, 3 - Math.floor(Math.log10(Math.abs(best)))));
}
