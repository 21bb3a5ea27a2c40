// What is shown. Whatever somebody has said goes through textContent, and so is never markup.

const WHO = { user: "You:", assistant: "Concierge:" };

export const get = (id) => document.getElementById(id);

let live = null; // the answer that is being made

function messageElement({ role, content, image, interrupted, id }) {
  const item = get("message-template").content.firstElementChild.cloneNode(true);
  const picture = item.querySelector("img");
  item.className = `message ${role}`;
  if (id) item.dataset.id = id;
  item.querySelector(".who").textContent = WHO[role];
  item.querySelector(".text").textContent = content;
  if (image) picture.src = image;
  else picture.remove();
  if (!interrupted) item.querySelector(".interrupted").remove();
  return item;
}

function scrollDown() {
  get("transcript").scrollTop = 0; // the bottom, because it is laid out from there
}

// Behind all that is stored, and before what somebody has said here that is not stored yet.
function place(item) {
  get("messages").insertBefore(item, get("messages").querySelector(".unstored"));
  get("welcome").hidden = true;
  scrollDown();
}

// Show a stored message, in place of what was shown of it before.
export function addMessage(message) {
  const item = messageElement(message);
  const preview = message.role === "assistant" ? live : unstored(message.id);
  preview?.remove();
  item.classList.toggle("new", !preview);
  if (message.role === "assistant") endLive();
  place(item);
}

// Show what somebody has just said here.
export function addUnstored(message) {
  const item = messageElement({ ...message, role: "user", content: message.text });
  item.classList.add("unstored", "new");
  get("messages").append(item);
  get("welcome").hidden = true;
  scrollDown();
}

export function removeUnstored(id) {
  unstored(id)?.remove();
  get("welcome").hidden = get("messages").childElementCount > 0;
}

function unstored(id) {
  const items = [...get("messages").querySelectorAll(".unstored")];
  return id && items.find((item) => item.dataset.id === id);
}

// The answer as far as it has come. Not read out: that is done once, when it is finished.
export function showLive({ text, image }) {
  get("typing").hidden = text !== "";
  if (text) {
    if (!live) {
      live = messageElement({ role: "assistant", content: "", image });
      live.classList.add("live", "new");
      live.setAttribute("aria-hidden", "true");
      place(live);
    }
    live.querySelector(".text").textContent = text;
  }
  scrollDown();
}

export function endLive() {
  live?.remove();
  live = null;
  get("typing").hidden = true;
}

export function showMessages(messages) {
  live = null;
  get("messages").replaceChildren(...messages.map(messageElement));
  get("welcome").hidden = messages.length > 0;
  scrollDown();
}

function noteElement({ name, value }, before) {
  const row = get("note-template").content.firstElementChild.cloneNode(true);
  row.querySelector("dt").textContent = name;
  row.querySelector("dd").textContent = value;
  row.classList.toggle("changed", before.get(name) !== value);
  return row;
}

export function showNotes(notes) {
  const rows = get("state").querySelectorAll(".note");
  const before = new Map([...rows].map((row) => [...row.children].map((cell) => cell.textContent)));
  get("state").replaceChildren(...notes.map((note) => noteElement(note, before)));
  get("nothing").hidden = notes.length > 0;
}

export function showNotice(text) {
  get("notice").textContent = text;
  get("notice").hidden = !text;
}

// What is not as it should be, but nothing to do about. One line for each reason, by its name.
export function showBanner(name, text) {
  const shown = [...get("banner").children].find((line) => line.dataset.name === name);
  if (!text) shown?.remove();
  else if (!shown) {
    const line = document.createElement("p");
    line.dataset.name = name;
    line.textContent = text;
    get("banner").append(line);
  }
}
