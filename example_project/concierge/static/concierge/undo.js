// After "New" there is a way back for a while.

import { get, hide } from "./dom.js";

let timer = null;

// For so many seconds; 0: not any more.
export function offerUndo(seconds) {
  clearTimeout(timer);
  if (!seconds) {
    hide(get("undo"));
    return;
  }
  get("undo").hidden = false;
  timer = setTimeout(() => offerUndo(0), seconds * 1000);
}
