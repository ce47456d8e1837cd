"use strict";
const lists = [...document.querySelectorAll("details.list")];
const examples = [...document.querySelectorAll(".example")];
const filter = document.getElementById("filter");
const found = document.getElementById("found");
const words = new Map();

function text(example) {
  if (!words.has(example)) {
    const ids = [...example.querySelectorAll("img")].map((image) => image.alt);
    words.set(example, [example.textContent, ...ids].join(" ").toLowerCase());
  }
  return words.get(example);
}

function apply() {
  const wanted = filter.value.trim().toLowerCase();
  let shown = 0;
  for (const example of examples) {
    example.hidden = wanted !== "" && !text(example).includes(wanted);
    shown += example.hidden ? 0 : 1;
  }
  for (const list of lists) {
    list.hidden = wanted !== "" && !list.querySelector(".example:not([hidden])");
    if (wanted !== "" && !list.hidden) list.open = true;
  }
  found.textContent = wanted === "" ? "" : `${shown} of ${examples.length} examples`;
}

let waiting = 0;
filter.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(apply, 150);
});
document.getElementById("open").addEventListener("click", () => lists.forEach((list) => { list.open = true; }));
document.getElementById("close").addEventListener("click", () => lists.forEach((list) => { list.open = false; }));
