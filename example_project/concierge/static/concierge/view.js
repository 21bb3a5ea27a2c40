// What is shown of the conversation, and of what is not as it should be.

import { get, hide } from "./dom.js";
import { goToEnd, keepingPlace } from "./follow.js";
import { messageElement } from "./message.js";

let live = null; // the answer that is being made

// Behind all that is stored, and before what the visitor has said here that is not stored yet.
function place(item) {
  get("messages").insertBefore(item, get("messages").querySelector(".unstored"));
  get("welcome").hidden = true;
}

// Show a stored message, in place of what was shown of it before.
export function addMessage(message) {
  const item = messageElement(message);
  const preview = message.role === "assistant" ? live : unstored(message.id);
  item.classList.toggle("new", !preview);
  keepingPlace(() => {
    preview?.remove();
    if (message.role === "assistant") endLive();
    place(item);
  }, true);
}

export function isShown({ id }) {
  const items = get("messages").querySelectorAll("[data-id]:not(.unstored)");
  return [...items].some((item) => item.dataset.id === id);
}

// Show what the visitor has just said here.
export function addUnstored(message) {
  const item = messageElement({ ...message, role: "user", content: message.text });
  item.classList.add("unstored", "new");
  get("messages").append(item);
  get("welcome").hidden = true;
  goToEnd();
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
  keepingPlace(() => {
    get("typing").hidden = text !== "";
    if (!text) return;
    if (!live) {
      live = messageElement({ role: "assistant", content: "", image });
      live.classList.add("live", "new");
      live.setAttribute("aria-hidden", "true");
      place(live);
    }
    live.querySelector(".text").textContent = text;
  }, text !== "");
}

export function endLive() {
  keepingPlace(() => {
    live?.remove();
    live = null;
    get("typing").hidden = true;
  });
  hide(get("stop"));
}

export function showMessages(messages) {
  live = null;
  keepingPlace(() => {
    get("messages").replaceChildren(...messages.map(messageElement));
    get("welcome").hidden = messages.length > 0;
  });
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
