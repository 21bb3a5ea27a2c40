// What is said by HTTP, where there is no websocket: as a stream of events, or all at once.

const PATIENCE = 15_000; // milliseconds without a word

export async function call(method, url, body) {
  let response;
  try {
    response = await request(method, url, body, AbortSignal.timeout(PATIENCE));
  } catch {
    throw new Error("The server does not answer. Your message is still here.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(answer.error?.message ?? `The server has a problem (${response.status}).`);
  }
  return answer;
}

// Resolves to the last event that has come, or null; `onEvent` is called with each.
export async function stream(url, body, onEvent) {
  const abort = new AbortController();
  const patience = () => setTimeout(() => abort.abort(), PATIENCE);
  let timer = patience();
  let last = null;
  try {
    const response = await request("POST", url, body, abort.signal);
    const type = response.headers.get("Content-Type") ?? "";
    if (!response.ok || !type.startsWith("text/event-stream")) return null;
    for await (const event of eventsOf(response.body)) {
      clearTimeout(timer);
      timer = patience();
      last = event;
      onEvent(event);
    }
  } catch {
    // It has broken off, and what has come has come.
  } finally {
    clearTimeout(timer);
  }
  return last;
}

function request(method, url, body, signal) {
  return fetch(url, {
    method,
    headers: body && { "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
    signal,
  });
}

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ")) yield JSON.parse(block.slice("data: ".length));
    }
  }
}
