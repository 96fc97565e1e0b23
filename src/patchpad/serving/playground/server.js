// What the page asks of its server. Every refusal becomes a ServerError whose message says what to do; its status is that
// of HTTP, or 0 where nobody answers.

export class ServerError extends Error {
  constructor(message, status = -1) {
    super(message);
    this.status = status;
  }
}

const UNREACHABLE = "The server does not answer. If it was stopped, start it again with “patchpad serve”, then press "
  + "Generate.";

const sentence = (text) => {
  const one = String(text).trim();
  return one === "" ? one : one[0].toUpperCase() + one.slice(1) + (/[.!?]$/.test(one) ? "" : ".");
};

const refusalOf = async (response) => {
  let message = "";
  try {
    message = (await response.json()).error.message;
  } catch {
    message = `the server answered with the status ${response.status}`;
  }
  const advice = response.status === 401 ? " Write the server’s API key into its field, then press Generate."
    : response.status === 429 || response.status === 503 ? " Wait a moment, then press Generate again." : "";
  return new ServerError(sentence(message) + advice, response.status);
};

// The data of server-sent events, as they come.
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const lines = held.split(/\r?\n/);
    held = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

export class Server {
  #key = "";

  set key(value) { this.#key = value.trim(); }

  async #ask(path, options = {}) {
    const headers = {};
    if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
    if (options.body) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError(UNREACHABLE, 0);
    }
    if (!response.ok) throw await refusalOf(response);
    return response;
  }

  async #post(path, body, signal) {
    return (await this.#ask(path, { method: "POST", body: JSON.stringify(body), signal })).json();
  }

  // The model that is served: { id, patchpad }.
  async model() {
    return (await (await this.#ask("/v1/models")).json()).data[0];
  }

  nextByte(body, signal) { return this.#post("/playground/next-byte", body, signal); }

  marks(body, signal) { return this.#post("/playground/marks", body, signal); }

  // Chunks of a completion, until the server says that it is done.
  async *complete(body, signal) {
    const response = await this.#ask("/v1/completions", {
      method: "POST",
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true }, byte_details: true }),
      signal,
    });
    try {
      for await (const data of eventsOf(response.body)) {
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ServerError(sentence(chunk.error.message));
        yield chunk;
      }
    } catch (error) {
      if (error.name === "AbortError" || error instanceof ServerError) throw error;
    }
    throw new ServerError("The connection broke off before the text was done. What came is kept; press Generate to try "
      + "again.");
  }
}
