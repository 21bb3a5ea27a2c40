// The time that is left until the conversation expires.

import { get } from "./dom.js";
import { showNotice } from "./view.js";

const SOON = 60; // seconds

let deadline = null; // by our clock, in milliseconds; null: there is nothing that can expire

export function startClock(seconds) {
  deadline = seconds === null ? null : Date.now() + seconds * 1000;
  if (document.body.classList.contains("expired")) showNotice("");
  document.body.classList.remove("expired");
  tick();
}

function tick() {
  const left = deadline === null ? null : Math.max(0, Math.ceil((deadline - Date.now()) / 1000));
  get("expiry").textContent = left === null ? "" : left ? `expires in ${clockFace(left)}` : "expired";
  get("expiry").classList.toggle("soon", left !== null && left <= SOON);
  if (left === 0 && !document.body.classList.contains("expired")) {
    document.body.classList.add("expired");
    showNotice("This conversation has expired. Your next message begins a new one.");
  }
}

function clockFace(seconds) {
  const parts = [Math.floor(seconds / 60) % 60, seconds % 60].map((n) => String(n).padStart(2, "0"));
  const hours = Math.floor(seconds / 3600);
  if (hours >= 48) return `${Math.floor(hours / 24)} days`;
  return (hours ? [hours, ...parts] : parts).join(":");
}

setInterval(tick, 250);
