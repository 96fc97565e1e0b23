// One setting's text: its bytes with what is known of each, its meter, and the run that writes it.

import { toText } from "./bytes.js";
import { TextView } from "./text_view.js";

const SHOW_MILLISECONDS = 60;
const whole = (n) => n.toLocaleString("en-US");
const plural = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;
// Three digits, as in patchpad inspect.
const sizeText = (bytes) => {
  if (bytes < 1000) return `${bytes} B`;
  const power = Math.min(3, Math.floor(Math.log10(bytes) / 3));
  return `${Number((bytes / 1000 ** power).toPrecision(3))} ${["", "kB", "MB", "GB"][power]}`;
};
const REASONS = { length: "the length was reached", end: "the model ended the text", stop: "the stop text came" };
const UNKNOWN = { endsPatch: null, hasScratchpad: null, entropy: null };

export class Lane {
  #timer = 0;

  constructor(template, id, onSelect) {
    this.root = template.content.cloneNode(true).firstElementChild;
    this.id = id;
    const box = this.root.querySelector(".text");
    box.id = `text-${id}`;
    this.view = new TextView(box, (index) => onSelect(this, index));
    this.heading = this.root.querySelector(".lane-name");
    this.plain = this.root.querySelector(".plain");
    this.copy = this.root.querySelector(".copy");
    this.tiles = Object.fromEntries(Array.from(this.root.querySelectorAll("[data-tile]"), (one) => [one.dataset.tile, one]));
    this.gauge = this.root.querySelector(".gauge i");
    this.bytes = [];
    this.facts = [];
    this.numPrompt = 0;
    this.rename("");
  }

  rename(name) {
    this.name = name;
    this.heading.hidden = name === "";
    this.view.box.setAttribute("aria-label", name === "" ? "The bytes of the text" : `${name}: the bytes of the text`);
    this.copy.setAttribute("aria-label", name === "" ? "Copy the text" : `${name}: copy the text`);
    this.#title();
  }

  #title() {
    this.heading.textContent = this.label ? `${this.name}: ${this.label}` : this.name;
  }

  // Starts anew: `prompt` are bytes, `body` what requests say of the setting, `label` its name for people.
  begin({ prompt, body, label, bytesPerEntry, marksAreOff }) {
    this.bytes = prompt.slice();
    this.numPrompt = prompt.length;
    this.body = body;
    this.label = label;
    this.bytesPerEntry = bytesPerEntry;
    this.marksAreOff = marksAreOff;
    this.facts = Array.from({ length: prompt.length + 1 }, () => UNKNOWN);
    this.usage = null;
    this.hasMarks = false;
    this.reason = "";
    this.isRunning = true;
    this.began = performance.now();
    this.firstAt = this.lastAt = 0;
    this.numAtFirst = 0;
    this.run = (this.run ?? 0) + 1;
    this.copy.disabled = true;
    this.plain.textContent = "";
    this.#title();
    this.view.begin(this.bytes, this.numPrompt);
    this.root.classList.add("running");
    this.#show();
  }

  get numNew() { return this.bytes.length - this.numPrompt; }

  // What the server says of the separator and the prompt's bytes.
  addMarks({ ends_patch: ends, has_scratchpad: pads, entropy_nats: entropies }) {
    if (ends === null) return;
    this.hasMarks = true;
    for (let i = 0; i <= this.numPrompt; i++) {
      this.#know(i, { endsPatch: ends[i], hasScratchpad: pads[i], entropy: entropies === null ? null : entropies[i] });
    }
    this.#later();
  }

  #know(index, facts) {
    this.facts[index] = facts;
    this.view.mark(index, facts);
  }

  // One choice of a stream's chunk.
  addChunk(choice) {
    const first = this.bytes.length;
    const facts = [];
    for (const one of choice.bytes ?? []) {
      const values = one.bytes ?? (one.byte === null ? [] : [one.byte]);
      values.forEach((value, place) => {
        const isLast = place === values.length - 1;
        this.bytes.push(value);
        facts.push(isLast && !this.marksAreOff ? { endsPatch: one.ends_patch, hasScratchpad: one.has_scratchpad, entropy: one.entropy_nats } : UNKNOWN);
      });
    }
    if (choice.stop_reason) this.reason = choice.stop_reason;
    if (facts.length === 0) return;
    this.lastAt = performance.now();
    if (!this.firstAt) {
      this.firstAt = this.lastAt;
      this.numAtFirst = facts.length;
    }
    this.view.grow();
    // A character that bytes have completed has new cells: its first bytes are marked again.
    for (let i = Math.max(0, first - 3); i < first; i++) this.view.mark(i + 1, this.facts[i + 1]);
    facts.forEach((fact, place) => this.#know(first + place + 1, fact));
    this.#later();
  }

  // Ends the run: `usage` is the server's count, null where it was cut short; `reason` says why it ended, if not the server did.
  end(usage, reason) {
    this.usage = usage;
    this.isRunning = false;
    if (reason) this.reason = reason;
    this.root.classList.remove("running");
    this.copy.disabled = this.bytes.length === 0;
    this.plain.textContent = toText(this.bytes);
    this.#show();
  }

  get text() { return toText(this.bytes); }

  #later() {
    if (!this.#timer) this.#timer = setTimeout(() => this.#show(), SHOW_MILLISECONDS);
  }

  // Trunk calls so far: the server's count when it has come, else that of the marks.
  counts() {
    const told = this.usage?.patchpad;
    let patches = 0, pads = 0, read = 0;
    this.facts.forEach((fact, index) => {
      if (fact.endsPatch) patches++;
      if (fact.hasScratchpad) pads++;
      if (fact.endsPatch !== null && index > 0) read++;
    });
    if (!told) return { patches, pads, calls: patches + pads, read, isWhole: this.hasMarks };
    const { trunk_calls: calls, trunk_cache_entries: entries } = told;
    const isRead = this.usage.total_tokens - (told.stop_reason === "length" && this.numNew > 0 ? 1 : 0);
    return { patches: entries, pads: calls - entries, calls, read: isRead, isWhole: true };
  }

  #show() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const tell = (name, text) => { this.tiles[name].textContent = text; };
    const { patches, pads, calls, read, isWhole } = this.counts();
    const isKnown = read > 0 && (this.usage !== null || !this.marksAreOff);
    const rate = isKnown ? calls / read : 0;
    tell("calls", isKnown ? rate.toFixed(3) : "–");
    tell("calls-detail", !isKnown ? "" : this.marksAreOff ? `${whole(calls)} in all`
      : `${whole(calls)} ${isWhole ? "in all" : "for new bytes"}: ${plural(patches, "patch", "patches")}, ${plural(pads, "scratchpad")}`);
    this.gauge.style.setProperty("--share", Math.min(1, rate));
    tell("cache", isKnown ? sizeText(this.usage?.patchpad.trunk_cache_bytes ?? patches * this.bytesPerEntry) : "–");
    tell("cache-detail", isKnown ? `${plural(patches, "entry", "entries")} of ${plural(this.bytesPerEntry, "byte")}` : "");
    const seconds = (this.lastAt - this.firstAt) / 1000, timed = this.numNew - this.numAtFirst;
    tell("speed", timed > 0 && seconds > 0 ? whole(Math.round(timed / seconds)) : "–");
    tell("speed-detail", this.firstAt ? `first byte after ${whole(Math.round(this.firstAt - this.began))} ms` : "");
    tell("new", this.numNew || !this.isRunning ? whole(this.numNew) : "–");
    tell("new-detail", this.isRunning ? (this.firstAt ? "writing …" : "waiting for the first …") : REASONS[this.reason] ?? this.reason);
  }
}
