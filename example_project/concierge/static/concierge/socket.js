// The websocket: opens again by itself, says how many messages we have seen, and so misses nothing.

// Milliseconds: without a word while we wait for one, and until the line is open.
const PATIENCE = 15_000;
const OPENS_WITHIN = 3000;
const SORRY = {
  4409: "I am still busy with what was said before. Please try again.",
  4503: "My memory cannot be reached at the moment. Please try again.",
};

export class Line {
  #path;
  #listener;
  #socket = null;
  #opening = Promise.resolve();
  #attempts = 0;
  #timer = null;
  #waiting = null; // for the answer to what we have said

  wasOpen = false;

  // `listener` has `seen()`, how many messages we have, and `onEvent(event)`, `onOpen()`, `onLost()`.
  constructor(path, listener) {
    this.#path = path;
    this.#listener = listener;
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  // Resolves when the line is open, or will not be.
  open() {
    this.close();
    const url = new URL(`${this.#path}?seen=${this.#listener.seen()}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(url));
    this.#opening = new Promise((resolve) => {
      socket.onopen = socket.onerror = resolve;
    });
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    socket.onclose = ({ code }) => {
      this.#socket = null;
      this.#settle(SORRY[code]);
      this.#listener.onLost();
    };
    return this.#opening;
  }

  // After a while that grows, and by chance, so that not all come back at once to a new server.
  openLater() {
    const longest = Math.min(30_000, 500 * 2 ** this.#attempts++);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#socket ?? this.open(), longest * (0.5 + Math.random() / 2));
  }

  close() {
    clearTimeout(this.#timer);
    if (!this.#socket) return;
    this.#socket.onclose = this.#socket.onmessage = null;
    this.#socket.close();
    this.#socket = null;
    this.#settle();
  }

  // Resolves when it is answered, or will be; to false, if the line broke before it was stored.
  async say(message) {
    // A line that opens later would be of another conversation, if the message begins one by HTTP.
    await Promise.race([this.#opening, new Promise((resolve) => setTimeout(resolve, OPENS_WITHIN))]);
    if (!this.isOpen) {
      this.close();
      return false;
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { id: message.id, isStored: false, resolve, reject, timer: null };
      this.#bePatient();
      this.#socket.send(JSON.stringify(message));
    });
  }

  #bePatient() {
    clearTimeout(this.#waiting.timer);
    this.#waiting.timer = setTimeout(() => {
      this.close();
      this.#listener.onLost();
    }, PATIENCE);
  }

  #settle(error) {
    const waiting = this.#waiting;
    if (!waiting) return;
    this.#waiting = null;
    clearTimeout(waiting.timer);
    if (error && !waiting.isStored) waiting.reject(new Error(error));
    else waiting.resolve(waiting.isStored);
  }

  #take(event) {
    if (event.type === "ready") {
      this.#attempts = 0;
      this.wasOpen = true;
      this.#listener.onOpen();
    }
    this.#listener.onEvent(event);
    const waiting = this.#waiting;
    if (!waiting) return;
    this.#bePatient();
    if (event.type === "refused") this.#settle(event.error.message);
    if (event.type !== "messages") return;
    waiting.isStored ||= event.messages.some((message) => message.id === waiting.id);
    if (waiting.isStored && event.messages.at(-1)?.role === "assistant") this.#settle();
  }
}
