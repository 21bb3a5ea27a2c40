// The page without reloads: sends, shows what comes back, counts down to the expiry.
// Whatever somebody has said goes through textContent, and so is never markup.

const WHO = { user: "You:", assistant: "Concierge:" };
const PATIENCE = 15_000; // milliseconds
const SOON = 60; // seconds

const get = (id) => document.getElementById(id);
const { messagesUrl, conversationUrl, messageCount, expiresIn } = document.body.dataset;

// The other tabs of this browser, which share the cookie and so the conversation.
const tabs = new BroadcastChannel("concierge");

let count = Number(messageCount); // of the messages that we know the server to have
let deadline = null; // when the conversation expires, by our clock, in milliseconds
let busy = false;

async function call(method, url, body) {
  let response;
  try {
    response = await fetch(url, {
      method,
      headers: body && { "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(PATIENCE),
    });
  } catch {
    throw new Error("The server does not answer. Your message is still here.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(answer.error?.message ?? `The server has a problem (${response.status}).`);
  }
  return answer;
}

// What is shown.

function messageElement({ role, content, image }) {
  const item = get("message-template").content.firstElementChild.cloneNode(true);
  const picture = item.querySelector("img");
  item.className = `message ${role}`;
  item.querySelector(".who").textContent = WHO[role];
  item.querySelector(".text").textContent = content;
  if (image) picture.src = image;
  else picture.remove();
  return item;
}

function addMessage(message) {
  const item = messageElement(message);
  item.classList.add("new");
  get("messages").append(item);
  get("welcome").hidden = true;
  get("transcript").scrollTop = 0; // the bottom, because it is laid out from there
  return item;
}

function noteElement({ name, value }, before) {
  const row = get("note-template").content.firstElementChild.cloneNode(true);
  row.querySelector("dt").textContent = name;
  row.querySelector("dd").textContent = value;
  row.classList.toggle("changed", before.get(name) !== value);
  return row;
}

function showStatus({ notes, message_count, expires_in }) {
  const rows = get("state").querySelectorAll(".note");
  const before = new Map([...rows].map((row) => [...row.children].map((cell) => cell.textContent)));
  get("state").replaceChildren(...notes.map((note) => noteElement(note, before)));
  get("nothing").hidden = notes.length > 0;
  count = message_count;
  startClock(expires_in);
  tabs.postMessage(expires_in);
}

function showAll(transcript) {
  get("messages").replaceChildren(...transcript.messages.map(messageElement));
  get("welcome").hidden = transcript.message_count > 0;
  get("transcript").scrollTop = 0;
  showStatus(transcript);
}

function showNotice(text) {
  get("notice").textContent = text;
  get("notice").hidden = !text;
}

// The time that is left.

// What is said in one tab prolongs the life of the conversation in the others.
tabs.onmessage = ({ data }) => {
  if (document.body.classList.contains("expired")) showNotice("");
  startClock(data);
};

function startClock(seconds) {
  deadline = seconds === null ? null : Date.now() + seconds * 1000;
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
  return (hours ? [hours, ...parts] : parts).join(":");
}

// What somebody does.

async function exclusively(action) {
  if (busy) return;
  busy = true;
  showNotice("");
  try {
    await action();
  } catch (error) {
    showNotice(error.message);
  } finally {
    busy = false;
    get("typing").hidden = true;
    get("text").focus();
  }
}

async function send(text) {
  const item = addMessage({ role: "user", content: text });
  const known = count;
  get("text").value = "";
  get("typing").hidden = false;
  try {
    const answer = await call("POST", messagesUrl, { text });
    if (answer.message_count === known + 2) {
      addMessage(answer.reply);
      showStatus(answer);
      return;
    }
    // Something has happened that we have not seen: another tab, or an end.
    showAll(await call("GET", conversationUrl));
    if (answer.started) showNotice("The last conversation was over, so this is a new one.");
  } catch (error) {
    item.remove();
    get("welcome").hidden = get("messages").childElementCount > 0;
    get("text").value = [text, get("text").value].filter(Boolean).join("\n");
    throw error;
  }
}

async function beginAnew() {
  showAll(await call("DELETE", conversationUrl));
}

function onSubmit(form, action) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    exclusively(() => action(event));
  });
}

onSubmit(get("new-form"), beginAnew);
onSubmit(get("suggestions"), (event) => send(event.submitter.value));
onSubmit(get("composer"), async () => {
  const text = get("text").value.trim();
  if (text) await send(text);
});
get("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  get("composer").requestSubmit();
});

startClock(expiresIn ? Number(expiresIn) : null);
setInterval(tick, 250);
