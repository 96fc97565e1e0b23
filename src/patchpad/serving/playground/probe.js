// What the model expects after one byte: two lists of bars, with a scratchpad at that byte and without one.

import { hex, nameOfByte, spokenByte } from "./bytes.js";

const NUM_BARS = 8;
const WAIT_MILLISECONDS = 120;
const percent = (p) => (p >= 0.9995 ? "100 %" : p >= 0.0995 ? `${(100 * p).toFixed(1)} %` : `${(100 * p).toFixed(2)} %`);
const entropyOf = (p) => p.reduce((sum, one) => (one > 0 ? sum - one * Math.log(one) : sum), 0);
const costOf = (p) => (p > 0 ? `${(-Math.log(p)).toFixed(3)} nats` : "more than 700 nats");
const bytesText = (n) => (n === 1 ? "1 byte" : `${n} bytes`);

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

export class Probe {
  #answers = new Map();
  #timer = 0;
  #request = null;
  #wanted = "";

  // `announce` gets what a screen reader should say.
  constructor(server, announce) {
    this.server = server;
    this.announce = announce;
    this.root = document.getElementById("probe");
    [this.title, this.facts, this.bars, this.note] =
      ["title", "facts", "bars", "note"].map((name) => document.getElementById(`probe-${name}`));
    document.getElementById("probe-close").addEventListener("click", () => this.close(true));
  }

  get isOpen() { return !this.root.hidden; }

  close(givesFocusBack = false) {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#wanted = "";
    this.root.hidden = true;
    document.documentElement.style.scrollPaddingBottom = "";
    this.lane?.view.unselect();
    if (givesFocusBack) this.lane?.view.box.focus();
  }

  forget() { this.#answers.clear(); }

  // Shows what follows cell `index` of a lane: 0 is the separator.
  show(lane, index) {
    if (this.lane && this.lane !== lane) this.lane.view.unselect();
    this.lane = lane;
    this.#request?.abort();
    clearTimeout(this.#timer);
    const position = index - 1;
    const key = this.#wanted = `${lane.id} ${lane.run} ${position}`;
    this.root.hidden = false;
    this.#head(lane, position);
    this.#reveal();
    const known = this.#answers.get(key);
    if (known) { this.#fill(lane, position, known); return; }
    this.root.setAttribute("aria-busy", "true");
    this.#timer = setTimeout(() => this.#ask(key, lane, position), WAIT_MILLISECONDS);
  }

  async #ask(key, lane, position) {
    const request = this.#request = new AbortController();
    const read = lane.bytes.slice(0, position + 1);
    try {
      const body = { ...lane.body, prompt: read.length ? read : "", position };
      const answer = await this.server.nextByte(body, request.signal);
      this.#answers.set(key, answer);
      if (this.#wanted === key) this.#fill(lane, position, answer);
    } catch (error) {
      if (error.name === "AbortError" || this.#wanted !== key) return;
      this.root.removeAttribute("aria-busy");
      this.bars.replaceChildren();
      this.facts.textContent = "";
      this.note.textContent = error.message;
      this.announce(error.message);
    }
  }

  // Scrolls so that the panel, which lies at the window's lower edge, does not cover the byte.
  #reveal() {
    document.documentElement.style.scrollPaddingBottom = `${this.root.offsetHeight + 12}px`;
    this.lane.view.reveal();
  }

  #head(lane, position) {
    const where = lane.name ? `${lane.name}: ` : "";
    if (position < 0) { this.title.textContent = `${where}the first byte`; return; }
    const byte = lane.bytes[position], glyph = element("span", "glyph", nameOfByte(byte));
    this.title.replaceChildren(`${where}${where ? "after" : "After"} byte ${position} `, glyph);
  }

  #fill(lane, position, answer) {
    this.root.removeAttribute("aria-busy");
    const follows = lane.bytes[position + 1] ?? null;
    this.#tellFacts(answer);
    const without = answer.without, withPad = answer.with;
    const score = (id) => Math.max(without[id], withPad ? withPad[id] : 0);
    const order = Array.from(without.keys()).sort((a, b) => score(b) - score(a)).slice(0, NUM_BARS);
    if (follows !== null && !order.includes(follows)) order[NUM_BARS - 1] = follows;
    const lists = withPad ? [["With a scratchpad", withPad], ["Without one", without]] : [["The next byte", without]];
    const longest = Math.max(...order.map(score));
    this.bars.replaceChildren(...lists.map(([title, values]) => this.#list(title, values, order, follows, longest)));
    this.bars.classList.toggle("single", lists.length === 1);
    this.note.textContent = this.#sentence(answer, follows);
    this.#reveal();
    this.announce(this.#spoken(lane, position, answer));
  }

  #tellFacts(answer) {
    const parts = [];
    const add = (name, text) => {
      const one = element("span");
      one.dataset.field = name;
      if (name) one.append(element("b", "", name), " ");
      one.append(text);
      parts.push(one);
    };
    if (answer.byte !== null) add("value", `0x${hex(answer.byte)}`);
    if (answer.ends_patch !== null) {
      add("here", answer.ends_patch ? "a patch ends" : answer.has_scratchpad ? "a scratchpad" : "no trunk call");
      add("patch lag", answer.patch_lag_without === answer.patch_lag ? bytesText(answer.patch_lag)
        : `${bytesText(answer.patch_lag)}, ${answer.patch_lag_without} without it`);
    }
    if (answer.entropy_nats !== null) add("entropy head", `${answer.entropy_nats.toFixed(3)} nats`);
    this.facts.replaceChildren(...parts);
  }

  #list(title, values, order, follows, longest) {
    const box = element("div", "bar-box");
    const heading = element("h3", "", title);
    const list = element("ol", "bar-list");
    list.setAttribute("aria-label", title);
    for (const id of order) {
      const row = element("li", id === follows ? "follows" : "");
      const bar = element("span", "bar");
      bar.append(element("i"));
      bar.setAttribute("aria-hidden", "true");
      bar.firstElementChild.style.setProperty("--share", longest > 0 ? values[id] / longest : 0);
      const name = nameOfByte(id), glyph = element("span", name.length > 2 ? "glyph word" : "glyph", name);
      row.append(glyph, bar, element("span", "percent", percent(values[id])));
      if (id === follows) {
        const sign = element("span", "sign", "◂");
        sign.title = "This byte follows in the text";
        sign.append(element("span", "unseen", "follows in the text"));
        row.append(sign);
      }
      list.append(row);
    }
    const others = Math.max(0, 1 - order.reduce((sum, id) => sum + values[id], 0));
    box.append(heading, list, element("p", "note", `Others ${percent(others)}; entropy ${entropyOf(values).toFixed(3)} nats`));
    return box;
  }

  #sentence(answer, follows) {
    const parts = [];
    if (answer.ends_patch) {
      parts.push("A patch ends here, so the trunk has just run: a scratchpad is never issued, and both lists are the same.");
    } else if (answer.with) {
      const moved = answer.with.reduce((sum, p, id) => sum + Math.abs(p - answer.without[id]), 0) / 2;
      parts.push(`A scratchpad here moves ${percent(moved)} of the probability.`);
    } else {
      parts.push("This model has no scratchpads.");
    }
    if (follows === null) return parts.join(" ");
    const name = spokenByte(follows);
    parts.push(answer.with && !answer.ends_patch
      ? `The byte that follows (◂ ${name}) costs ${costOf(answer.with[follows])} with it, ${costOf(answer.without[follows])} without.`
      : `The byte that follows (◂ ${name}) costs ${costOf(answer.without[follows])}.`);
    return parts.join(" ");
  }

  #spoken(lane, position, answer) {
    const likeliest = (values) => {
      const best = values.reduce((top, p, id) => (p > values[top] ? id : top), 0);
      return `${spokenByte(best)}, ${percent(values[best])}`;
    };
    const here = position < 0 ? "Before the first byte" : `Byte ${position}, ${spokenByte(lane.bytes[position])}`;
    const kind = answer.ends_patch ? ", a patch ends" : answer.has_scratchpad ? ", a scratchpad" : "";
    const next = answer.with && !answer.ends_patch
      ? `next with a scratchpad ${likeliest(answer.with)}; without ${likeliest(answer.without)}`
      : `next ${likeliest(answer.without)}`;
    const lag = answer.patch_lag === null ? "" : `; patch lag ${bytesText(answer.patch_lag)}`;
    return `${here}${kind}${lag}; ${next}.`;
  }
}
