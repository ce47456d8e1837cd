"use strict";
// What the data files hold, and how one query, item or number of it is shown. Text only ever enters the page as text.
const misrank = {
  data: {},
  add(name, value) { misrank.data[name] = value; },
};

const OTHER = { image: "text", text: "image" };
const QUERY_KIND = { i2t: "image", t2i: "text" };
const NOUN = { image: "image", text: "caption" };

// Numbers in base64, little-endian as Python wrote them.
function unpack(text, type) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new type(bytes.buffer);
}

function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Images and texts of the split: ids, texts, pictures, and the truth of each.
class Split {
  constructor(data) {
    this.ids = { image: data.images, text: data.captions };
    this.texts = data.texts;
    this.sizes = unpack(data.sizes, Uint16Array);
    this.truths = { image: data.images.map(() => []), text: data.captions.map(() => []) };
    const pairs = unpack(data.pairs, Uint32Array);
    for (let at = 0; at < pairs.length; at += 2) {
      this.truths.image[pairs[at]].push(pairs[at + 1]);
      this.truths.text[pairs[at + 1]].push(pairs[at]);
    }
  }

  // By what a record is found: its id and, of a caption, its words.
  words(kind, place) {
    return kind === "text" ? `${this.ids.text[place]} ${this.texts[place]}` : this.ids.image[place];
  }

  // A caption as text, an image as picture; an image that was not stored as its id.
  show(kind, place) {
    if (kind === "text") return element("span", { className: "words", dir: "auto" }, this.texts[place]);
    const [width, height] = [this.sizes[2 * place], this.sizes[2 * place + 1]];
    const id = this.ids.image[place];
    if (!width) return element("span", { className: "words" }, id);
    const src = `thumbnails/${String(place).padStart(6, "0")}.jpg`;
    return element("img", { loading: "lazy", decoding: "async", width, height, alt: `image ${id}`, title: id, src });
  }

  link(kind, place) {
    const direction = kind === "image" ? "i2t" : "t2i";
    return element("a", { className: kind, href: address(direction, this.ids[kind][place]) }, this.show(kind, place));
  }
}

function address(direction, id) {
  return `#query=${direction}/${encodeURIComponent(id)}`;
}

const formats = new Map();
function number(value, decimals) {
  if (!formats.has(decimals)) {
    formats.set(decimals, new Intl.NumberFormat("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals, signDisplay: "negative" }));
  }
  return formats.get(decimals).format(value);
}

// A cell's number in the units it is shown in.
function units(cell, column) {
  return column.kind === "share" ? 100 * cell : column.kind === "rank" ? cell + 1 : cell;
}

function format(cell, column) {
  if (cell === null) return "\u2013";
  if (typeof cell === "boolean") return cell ? "yes" : "no";
  if (typeof cell === "string") return cell;
  if (column.kind === "p" && cell < 0.001) return "< 0.001";
  return number(units(cell, column), column.decimals) + (column.kind === "share" ? "\u2009%" : "");
}
