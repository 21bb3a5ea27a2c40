// The visitor's conversations, newest first, if the store can list them.

import { get, made } from "./dom.js";
import { call } from "./http.js";

const url = document.body.dataset.conversationsUrl;

let shown = "";
let isLoading = false;
let isOutdated = false;

function element({ id, title, is_open: isOpen }) {
  const item = made("conversation-template");
  const button = item.querySelector("button");
  button.value = id;
  button.textContent = title;
  if (isOpen) button.setAttribute("aria-current", "true");
  return item;
}

// `conversations` is null while they cannot be listed.
function show(conversations) {
  if (JSON.stringify(conversations) === shown) return; // somebody may be about to press a button
  shown = JSON.stringify(conversations);
  for (const id of ["conversations", "show-conversations"]) get(id).hidden = !conversations;
  const focused = document.activeElement.closest("#conversation-list button")?.value;
  const items = (conversations ?? []).map(element);
  get("conversation-list").replaceChildren(...items);
  get("no-conversations").hidden = items.length > 0;
  const buttons = items.map((item) => item.firstElementChild);
  if (focused) buttons.find((button) => button.value === focused)?.focus();
}

// Something was said, or another conversation opened.
export async function refreshSidebar() {
  isOutdated = true;
  if (isLoading) return;
  isLoading = true;
  while (isOutdated) {
    isOutdated = false;
    const answer = await call("GET", url).catch(() => null);
    if (answer) show(answer.conversations);
  }
  isLoading = false;
}

export const closeSidebar = () => get("conversations").hidePopover();
