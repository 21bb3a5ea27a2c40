// The page without reloads: says what the visitor writes, by the best way there is, and shows what comes
// back. view.js, message.js, notes.js and follow.js are what is shown, socket.js and http.js are the ways,
// clock.js counts down, sidebar.js lists the visitor's conversations, undo.js is the way back from a new one.

import { startClock } from "./clock.js";
import { get } from "./dom.js";
import { call, stream } from "./http.js";
import { showNotes } from "./notes.js";
import { closeSidebar, refreshSidebar } from "./sidebar.js";
import { Line } from "./socket.js";
import { offerUndo } from "./undo.js";
import * as view from "./view.js";

const page = document.body.dataset;
const LOOK_EVERY = 3000; // milliseconds, at whether Redis is back
const GONE =
  "The conversation that was here is gone. It has expired, or the server was restarted or emptied. " +
  "What you say begins a new one.";
const REPLACED = "The last conversation was over, so this is a new one.";
const NEW_ELSEWHERE = "Another tab has begun a new conversation.";
const OPENED_ELSEWHERE = "Another tab has opened this conversation.";

// The other tabs of this browser, which share the cookie and so the conversation.
const tabs = new BroadcastChannel("concierge");

let seen = Number(page.messageCount); // how many messages we know the server to have
let degraded = Boolean(page.degraded);
let queue = Promise.resolve(); // what the visitor does comes one after the other
let waiting = 0;
let isStopping = false;

const line = new Line(page.socketPath, {
  seen: () => seen,
  onEvent: take,
  onOpen: () => view.showBanner("line", ""),
  onLost,
});

// What comes.

function take(event) {
  if (event.type === "answer") {
    view.showLive(event);
    showStop();
  } else if (event.type === "messages") takeMessages(event);
  else if (event.type === "ready" && event.seen !== seen) refresh().catch(() => {});
}

function takeMessages({ messages, status, ...event }) {
  showStatus(status);
  if (event.seen === seen + messages.length) {
    for (const message of messages) view.addMessage(message);
  } else {
    // After an outage, what was said in it comes once more.
    const isAnother = event.seen <= seen && !messages.some(view.isShown);
    if (isAnother) noteAnother(status);
    refresh().catch(() => {}); // something has happened that we have not seen
  }
  know(event.seen);
}

function showStatus(status) {
  showNotes(status);
  startClock(status.expires_in);
  showDegraded(status.degraded);
  refreshSidebar();
}

function showDegraded(isDegraded) {
  degraded = isDegraded;
  view.showBanner("degraded", degraded ? page.degradedText : "");
}

function showAll(transcript) {
  view.showMessages(transcript.messages);
  know(transcript.message_count);
  showStatus(transcript);
}

// This tab remembers it over a reload.
function know(count) {
  seen = count;
  sessionStorage.setItem("seen", count);
}

async function refresh() {
  const transcript = await call("GET", page.conversationUrl);
  const isShorter = transcript.message_count < seen;
  showAll(transcript);
  if (isShorter) noteAnother(transcript);
}

// What is shown now is not the conversation that was here.
function noteAnother({ degraded, message_count: count }) {
  // While Redis is away, there may just be less to be seen of the one that it was.
  if (!degraded) view.showNotice(count ? REPLACED : GONE);
}

// While Redis is away: is it back?
async function look() {
  if (!degraded || waiting) return;
  const transcript = await call("GET", page.conversationUrl).catch(() => null);
  if (!transcript || waiting) return;
  if (transcript.message_count !== seen) showAll(transcript);
  else showStatus(transcript);
}

function onLost() {
  view.endLive();
  if (line.wasOpen) view.showBanner("line", "The line to the concierge is down. I keep trying.");
  // What is said by HTTP meanwhile may begin a new conversation, so `inTurn` opens it after that.
  if (!waiting) line.openLater();
}

tabs.onmessage = ({ data }) => {
  if (data === "anew") follow().catch(() => {});
  else if (!(waiting || line.isOpen)) refresh().catch(() => {});
};

// Another tab has begun a new conversation, or has gone back to one.
async function follow() {
  offerUndo(0);
  line.close();
  know(0);
  try {
    await refresh();
    view.showNotice(seen ? OPENED_ELSEWHERE : NEW_ELSEWHERE);
  } finally {
    line.open();
  }
}

// What the visitor does.

function inTurn(action) {
  waiting += 1;
  queue = queue.then(async () => {
    view.showNotice("");
    try {
      await action();
    } catch (error) {
      view.showNotice(error.message);
    }
    waiting -= 1;
    if (!line.isOpen) line.openLater();
  });
}

function send(text) {
  // With a name, under which it is answered once, however often and by whichever way it is sent.
  const message = { id: `${Date.now()}-${Math.random()}`, text };
  view.addUnstored(message);
  offerUndo(0); // it would lead away from this
  inTurn(() => say(message));
}

async function say(message) {
  view.showLive({ text: "" });
  try {
    if (!(await line.say(message))) await sayByHttp(message);
  } catch (error) {
    view.removeUnstored(message.id);
    get("text").value = [message.text, get("text").value].filter(Boolean).join("\n");
    throw error;
  } finally {
    view.endLive();
  }
}

async function sayByHttp(message) {
  view.showLive({ text: "" }); // a line that was lost has hidden it
  const last = await stream(page.streamUrl, message, take);
  if (!last) await post(message);
  else if (last.messages?.at(-1).role !== "assistant") await refresh(); // it has broken off
  tabs.postMessage("said");
}

async function post(message) {
  const known = seen;
  const answer = await call("POST", page.messagesUrl, message);
  if (answer.message_count === known + 2) {
    const { timestamp } = answer.reply;
    view.addMessage({ role: "user", content: message.text, id: message.id, timestamp });
    view.addMessage(answer.reply);
    know(answer.message_count);
    showStatus(answer);
  } else {
    await refresh();
    if (answer.started) noteAnother(answer);
  }
}

async function beginAnew() {
  const transcript = await call("POST", page.newUrl, {});
  await change(transcript);
  offerUndo(transcript.undo_for);
}

async function goBack() {
  offerUndo(0);
  await change(await call("DELETE", page.newUrl));
}

async function open(id) {
  offerUndo(0);
  await change(await call("POST", page.conversationsUrl, { id }));
}

async function change(transcript) {
  showAll(transcript);
  await line.open();
  tabs.postMessage("anew"); // now that they get the same cookie
}

function showStop() {
  if (get("stop").hidden) isStopping = false; // it is another answer
  get("stop").hidden = false;
}

async function stop() {
  if (isStopping || get("stop").hidden) return;
  isStopping = true;
  try {
    await call("DELETE", page.streamUrl);
  } catch (error) {
    isStopping = false;
    view.showNotice(error.message);
  }
}

function onSubmit(form, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    action(event);
    get("text").focus();
  });
}

onSubmit(get("new-form"), () => {
  stop();
  inTurn(beginAnew);
});
onSubmit(get("open-form"), ({ submitter }) => {
  closeSidebar();
  if (submitter.getAttribute("aria-current")) return;
  stop();
  inTurn(() => open(submitter.value));
});
onSubmit(get("undo"), () => inTurn(goBack));
get("stop").addEventListener("click", stop);
onSubmit(get("suggestions"), (event) => send(event.submitter.value));
onSubmit(get("composer"), () => {
  const text = get("text").value.trim();
  get("text").value = "";
  if (text) send(text);
});
get("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  get("composer").requestSubmit();
});

// The page may be a reloaded one, and the server have lost what was in it.
if (Number(sessionStorage.getItem("seen")) > seen && get("notice").hidden) {
  noteAnother({ degraded, message_count: seen });
}
know(seen);
offerUndo(Number(page.undoFor));
startClock(page.expiresIn ? Number(page.expiresIn) : null);
setInterval(look, LOOK_EVERY);
line.open();
