// What the conversation keeps in mind: in words, and as it is stored.

import { get, made } from "./dom.js";

function lineElement({ name, value }, hasChanged) {
  const line = made("line-template");
  line.querySelector("dt").textContent = name;
  line.querySelector("dd").textContent = value;
  line.classList.toggle("changed", hasChanged);
  return line;
}

function groupElement({ title, lines }, before) {
  const group = made("group-template");
  const isNew = ({ name, value }) => before.get(`${title}: ${name}`) !== value;
  group.querySelector("h3").textContent = title;
  group.querySelector("dl").replaceChildren(...lines.map((line) => lineElement(line, isNew(line))));
  return group;
}

function shown() {
  const before = new Map();
  for (const line of get("state").querySelectorAll(".line")) {
    const title = line.closest(".group").querySelector("h3").textContent;
    const [name, value] = [...line.children].map((cell) => cell.textContent);
    before.set(`${title}: ${name}`, value);
  }
  return before;
}

export function showNotes({ notes, state }) {
  const before = shown();
  get("state").replaceChildren(...notes.map((group) => groupElement(group, before)));
  get("nothing").hidden = notes.length > 0;
  get("raw").hidden = notes.length === 0;
  get("raw-state").textContent = JSON.stringify(state, null, 2);
}
