// One message. What a visitor has said goes through textContent, and so is never markup.

import { get, made } from "./dom.js";

const WHO = { user: "You:", assistant: "Concierge:" };
const COPIED_FOR = 2000; // milliseconds
const STOPPED = "You stopped this answer.";

export function messageElement({ role, content, image, interrupted, stopped, id, timestamp }) {
  const item = made("message-template");
  const picture = item.querySelector("img");
  item.className = `message ${role}`;
  if (id) item.dataset.id = id;
  item.querySelector(".who").textContent = WHO[role];
  item.querySelector(".text").textContent = content;
  if (image) picture.src = image;
  else picture.remove();
  if (!interrupted) item.querySelector(".interrupted").remove();
  else if (stopped) item.querySelector(".interrupted").textContent = STOPPED;
  if (!timestamp) item.querySelector(".about").remove(); // it is not stored yet
  else {
    item.querySelector("time").dateTime = timestamp;
    complete(item);
  }
  return item;
}

// Show the time as it is here, and offer to copy, if this page may.
function complete(item) {
  const time = item.querySelector("time");
  if (time) showTime(time, new Date(time.dateTime));
  let button = item.querySelector(".copy");
  if (!button) {
    button = made("message-template").querySelector(".copy");
    item.querySelector(".about").append(button);
  }
  if (navigator.clipboard) button.addEventListener("click", () => copy(item, button));
  else button.remove();
}

function showTime(time, date) {
  const isToday = date.toDateString() === new Date().toDateString();
  const day = isToday ? {} : { day: "numeric", month: "short" };
  time.textContent = date.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" });
  time.title = date.toLocaleString();
}

async function copy(item, button) {
  const label = button.firstChild; // the word that is seen; it is read out, as all that changes here
  try {
    await navigator.clipboard.writeText(item.querySelector(".text").textContent);
    label.textContent = "Copied";
  } catch {
    label.textContent = "Not allowed";
  }
  setTimeout(() => {
    label.textContent = "Copy";
  }, COPIED_FOR);
}

// Those that came with the page.
for (const item of get("messages").children) complete(item);
