// A reader of the end of the conversation stays at its end; one who has scrolled up stays there,
// and is told that there is something new below.

import { get } from "./dom.js";

const SLACK = 40; // pixels: that is still the end

const box = get("transcript");
const below = get("below");

// It is laid out from the bottom: 0 is the end, and what is above it is negative.
const isAtEnd = () => box.scrollTop > -SLACK;

export function goToEnd() {
  box.scrollTop = 0;
  below.hidden = true;
}

// Change what is shown, at its end. With `isNew`, something new is to be read then.
export function keepingPlace(change, isNew = false) {
  const wasAtEnd = isAtEnd();
  const height = box.scrollHeight;
  change();
  if (wasAtEnd) {
    goToEnd();
  } else {
    box.scrollTop -= box.scrollHeight - height;
    if (isNew) below.hidden = isAtEnd();
  }
}

box.addEventListener("scroll", () => {
  if (isAtEnd()) below.hidden = true;
});
below.addEventListener("click", () => {
  box.focus({ preventScroll: true }); // the button goes
  goToEnd();
});
