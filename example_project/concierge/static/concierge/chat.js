// The page without reloads: says what somebody writes, by the best way there is, and shows what comes
// back. view.js is what is shown, socket.js and http.js are the ways, clock.js counts down.

import { startClock } from "./clock.js";
import { call, stream } from "./http.js";
import { Line } from "./socket.js";
import * as view from "./view.js";

const { get } = view;
const page = document.body.dataset;
const LOOK_EVERY = 3000; // milliseconds, at whether Redis is back

// The other tabs of this browser, which share the cookie and so the conversation.
const tabs = new BroadcastChannel("concierge");

let seen = Number(page.messageCount); // how many messages we know the server to have
let degraded = Boolean(page.degraded);
let queue = Promise.resolve(); // what somebody does comes one after the other
let waiting = 0;

const line = new Line(page.socketPath, {
  seen: () => seen,
  onEvent: take,
  onOpen: () => view.showBanner("line", ""),
  onLost,
});

// What comes.

function take(event) {
  if (event.type === "answer") view.showLive(event);
  else if (event.type === "messages") takeMessages(event);
  else if (event.type === "ready" && event.seen !== seen) refresh().catch(() => {});
}

function takeMessages({ messages, status, ...event }) {
  showStatus(status);
  if (event.seen === seen + messages.length) {
    for (const message of messages) view.addMessage(message);
  } else {
    if (event.seen <= seen) noteAnother(status);
    refresh().catch(() => {}); // something has happened that we have not seen
  }
  seen = event.seen;
}

function showStatus(status) {
  view.showNotes(status.notes);
  startClock(status.expires_in);
  showDegraded(status.degraded);
}

function showDegraded(isDegraded) {
  degraded = isDegraded;
  view.showBanner("degraded", degraded ? page.degradedText : "");
}

function showAll(transcript) {
  view.showMessages(transcript.messages);
  seen = transcript.message_count;
  showStatus(transcript);
}

async function refresh() {
  const transcript = await call("GET", page.conversationUrl);
  const isShorter = transcript.message_count < seen;
  showAll(transcript);
  if (isShorter) noteAnother(transcript);
}

function noteAnother(status) {
  // While Redis is away, there may just be less to be seen of the one that it was.
  if (!status.degraded) view.showNotice("The last conversation was over, so this is a new one.");
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
  if (data === "anew") line.open();
  if (data === "anew" || !(waiting || line.isOpen)) refresh().catch(() => {});
};

// What somebody does.

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
    view.addMessage({ role: "user", content: message.text, id: message.id });
    view.addMessage(answer.reply);
    seen = answer.message_count;
    showStatus(answer);
  } else {
    await refresh();
    if (answer.started) noteAnother(answer);
  }
}

async function beginAnew() {
  showAll(await call("DELETE", page.conversationUrl));
  await line.open();
  tabs.postMessage("anew"); // now that they get the same cookie
}

function onSubmit(form, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    action(event);
    get("text").focus();
  });
}

onSubmit(get("new-form"), () => inTurn(beginAnew));
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

startClock(page.expiresIn ? Number(page.expiresIn) : null);
setInterval(look, LOOK_EVERY);
line.open();
