"use strict";
// A table that sorts, filters, searches and shows its rows page by page; cells lie in columns.
class DataTable {
  static CHOICES = 12; // a text column with no more values gets a list to choose from
  static SMALL = 21; // rows that need no tools
  static SHORT = 24; // letters of a text that is not broken over lines

  constructor(root, data, split) {
    Object.assign(this, { root, data, split, page: 0, size: data.rows > DataTable.SMALL ? 10 : DataTable.SMALL, sorted: null, ranges: new Map(), chosen: new Map(), wanted: "" });
    this.order = [...Array(data.rows).keys()];
    this.classes = data.columns.map((column, at) => this.style(column, at));
    this.body = element("tbody");
    this.heads = data.columns.map((column, at) => this.head(column, at));
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...this.heads)), this.body);
    const title = root.getAttribute("aria-labelledby");
    this.scroll = element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-labelledby": title }, table);
    if (data.rows > DataTable.SMALL) root.append(this.tools(), this.scroll, this.pager());
    else root.append(this.scroll);
    this.draw();
  }

  numeric(at) {
    return !["text", "query", "item"].includes(this.data.columns[at].kind);
  }

  style(column, at) {
    if (column.of) return `entry ${column.of}`;
    if (this.numeric(at)) return "number";
    return this.data.cells[at].every((cell) => format(cell, column).length <= DataTable.SHORT) ? "short" : "";
  }

  head(column, at) {
    const button = element("button", { type: "button", onclick: () => this.sort(at) }, column.name);
    return element("th", { scope: "col", className: this.numeric(at) ? "number" : "", "aria-sort": "none" }, button);
  }

  tools() {
    const search = element("input", { type: "search", placeholder: "Search", "aria-label": "Search this table", autocomplete: "off" });
    let waiting = 0;
    search.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { this.wanted = search.value.trim().toLowerCase(); this.apply(); }, 150);
    });
    this.limits = element("div", { className: "limits" });
    return element("div", { className: "tools" }, search, ...this.choosers(), this.adder(), this.limits);
  }

  choosers() {
    const found = this.data.columns.map((column, at) => [column, at, [...new Set(this.data.cells[at])]]);
    const few = found.filter(([column, , values]) => column.kind === "text" && values.length > 1 && values.length <= DataTable.CHOICES);
    return few.map(([column, at, values]) => {
      const options = values.map((value, index) => new Option(format(value, column), index));
      const select = element("select", { "aria-label": column.name }, new Option(`${column.name}: all`, ""), ...options);
      select.addEventListener("change", () => {
        if (select.value === "") this.chosen.delete(at);
        else this.chosen.set(at, values[select.value]);
        this.apply();
      });
      return select;
    });
  }

  adder() {
    const columns = this.data.columns.map((column, at) => [column, at]).filter(([, at]) => this.numeric(at));
    if (!columns.length) return null;
    const options = columns.map(([column, at]) => new Option(column.name, at));
    const select = element("select", { "aria-label": "Filter by a number" }, new Option("Add a filter", ""), ...options);
    select.addEventListener("change", () => {
      if (select.value !== "" && !this.ranges.has(Number(select.value))) this.limit(Number(select.value));
      select.value = "";
    });
    return select;
  }

  limit(at) {
    const column = this.data.columns[at];
    const ends = [-Infinity, Infinity];
    this.ranges.set(at, ends);
    const inputs = ["from", "to"].map((word, end) => {
      const input = element("input", { type: "number", step: "any", placeholder: word, "aria-label": `${column.name} ${word}` });
      input.addEventListener("input", () => {
        ends[end] = input.value === "" ? [-Infinity, Infinity][end] : Number(input.value);
        this.apply();
      });
      return input;
    });
    const remove = element("button", { type: "button", "aria-label": `Remove the filter ${column.name}` }, "\u00d7");
    const name = element("span", {}, column.name + (column.kind === "share" ? " (%)" : ""));
    const group = element("span", { className: "limit", role: "group", "aria-label": column.name }, name, ...inputs, remove);
    remove.addEventListener("click", () => { this.ranges.delete(at); group.remove(); this.apply(); });
    this.limits.append(group);
    inputs[0].focus();
  }

  pager() {
    const move = (label, text, to) => element("button", { type: "button", "aria-label": label, onclick: () => { this.page = to(); this.draw(); } }, text);
    this.before = move("Earlier rows", "\u2039", () => this.page - 1);
    this.after = move("Later rows", "\u203a", () => this.page + 1);
    this.range = element("output", {});
    const sizes = [10, 25, 100].map((size) => new Option(`${size} rows`, size));
    const size = element("select", { "aria-label": "Rows shown", onchange: () => { this.size = Number(size.value); this.page = 0; this.draw(); } }, ...sizes);
    return element("div", { className: "pager" }, this.before, this.range, this.after, size);
  }

  kept(row) {
    const { columns, cells } = this.data;
    for (const [at, value] of this.chosen) if (cells[at][row] !== value) return false;
    for (const [at, [low, high]] of this.ranges) {
      const cell = cells[at][row];
      if (cell === null && (low > -Infinity || high < Infinity)) return false;
      const value = units(Number(cell), columns[at]);
      if (value < low || value > high) return false;
    }
    return this.wanted === "" || this.words(row).includes(this.wanted);
  }

  words(row) {
    this.texts ??= new Array(this.data.rows);
    this.texts[row] ??= this.data.columns.map((column, at) => {
      const cell = this.data.cells[at][row];
      return column.of && typeof cell === "number" ? this.split.words(column.of, cell) : format(cell, column);
    }).join("\n").toLowerCase();
    return this.texts[row];
  }

  sort(at) {
    const down = this.sorted?.at === at ? !this.sorted.down : ["count", "share", "figure"].includes(this.data.columns[at].kind);
    this.sorted = { at, down };
    this.heads.forEach((head, index) => head.setAttribute("aria-sort", index !== at ? "none" : down ? "descending" : "ascending"));
    this.apply();
  }

  apply() {
    this.order = [...Array(this.data.rows).keys()].filter((row) => this.kept(row));
    if (this.sorted) {
      const { at, down } = this.sorted;
      const key = this.keys(at);
      const compare = (a, b) => (key[a] < key[b] ? -1 : key[a] > key[b] ? 1 : 0);
      const none = (row) => this.data.cells[at][row] === null; // stands last, whichever way
      this.order.sort((a, b) => none(a) - none(b) || (down ? compare(b, a) : compare(a, b)) || a - b);
    }
    this.page = 0;
    this.draw();
  }

  keys(at) {
    const column = this.data.columns[at];
    if (column.of) return this.data.cells[at].map((cell) => (column.of === "text" && typeof cell === "number" ? this.split.texts[cell] : String(this.split.ids[column.of][cell] ?? cell)));
    return this.data.cells[at];
  }

  draw() {
    const start = this.page * this.size;
    const rows = this.order.slice(start, start + this.size);
    this.body.replaceChildren(...rows.map((row) => this.row(row)));
    if (!rows.length) this.body.append(element("tr", {}, element("td", { className: "empty", colSpan: this.data.columns.length }, this.data.rows ? "No row matches." : "Nothing to show.")));
    if (!this.range) return;
    const of = this.order.length < this.data.rows ? ` (of ${number(this.data.rows, 0)})` : "";
    this.range.textContent = rows.length ? `${number(start + 1, 0)}\u2013${number(start + rows.length, 0)} of ${number(this.order.length, 0)}${of}` : `0${of}`;
    this.before.disabled = this.page === 0;
    this.after.disabled = start + rows.length >= this.order.length;
  }

  row(row) {
    const cells = this.data.columns.map((column, at) => {
      const cell = this.data.cells[at][row];
      if (column.of && typeof cell === "number") return element("td", { className: this.classes[at] }, this.split.link(column.of, cell));
      return element("td", { className: this.classes[at], dir: "auto" }, format(cell, column));
    });
    return element("tr", {}, ...cells);
  }

  // The queries of this table in the order it shows them, for the way from one to the next.
  queries() {
    const at = this.data.columns.findIndex((column) => column.kind === "query");
    return at < 0 ? [] : [...new Set(this.order.map((row) => this.data.cells[at][row]))].filter((cell) => typeof cell === "number");
  }
}
