// A text as cells, one for each byte and one for the separator before them, which can be walked by the arrow keys.

import { unitsOf } from "./bytes.js";

const NUM_SHADES = 10, FULL_SHADE_NATS = 4;
const LONG_TEXT = 3000; // bytes; from then on, lines that are out of sight are not laid out
const LONGEST_LINE = 1500; // bytes; laying a longer block out anew at every event would take too long

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

export class TextView {
  #tail = 0; // bytes before it are characters that nothing can change any more
  #tailElements = [];
  #line = null;
  #lineStart = 0;
  #flag = null;

  // `onSelect` gets the index of a cell: 0 for the separator, then 1 + index of the byte.
  constructor(box, onSelect) {
    this.box = box;
    this.empty = box.firstElementChild;
    this.onSelect = onSelect;
    this.cells = [];
    this.selected = -1;
    this.flagged = -1;
    box.addEventListener("click", (event) => {
      const cell = event.target instanceof Element ? event.target.closest("i") : null;
      const at = cell === null ? -1 : Number(cell.dataset.i ?? -1);
      if (at >= 0) this.select(at);
    });
    box.addEventListener("keydown", (event) => this.#key(event));
  }

  begin(bytes, numPrompt) {
    this.bytes = bytes;
    this.numPrompt = numPrompt;
    this.cells = [];
    this.selected = this.flagged = -1;
    this.#tail = 0;
    this.#tailElements = [];
    this.#flag = null;
    this.#line = element("div");
    this.#lineStart = 0;
    this.box.replaceChildren(this.#line);
    this.#line.append(this.#cell("»", "sep"));
    this.box.scrollTop = 0;
    this.grow();
  }

  // Shows bytes that have been added to the list since.
  grow() {
    const follows = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
    for (const old of this.#tailElements) old.remove();
    this.cells.length = this.#tail + 1;
    this.box.classList.toggle("long", this.bytes.length > LONG_TEXT);
    const units = unitsOf(this.bytes, this.#tail);
    const open = units.findIndex((unit) => unit.isOpen);
    const settled = open < 0 ? units.length : open;
    this.#tailElements = [];
    units.forEach((unit, index) => {
      const made = this.#unit(unit);
      if (index >= settled) this.#tailElements.push(...made);
      if (this.#line === null) {
        this.box.append(this.#line = element("div"));
        this.#lineStart = unit.start;
      }
      this.#line.append(...made);
      const isLong = index < settled && unit.stop - this.#lineStart >= LONGEST_LINE;
      if (unit.breaksLine || isLong) this.#line = null;
    });
    this.#tail = settled < units.length ? units[settled].start : this.bytes.length;
    if (this.selected >= 0) this.cells[this.selected]?.classList.add("at");
    if (this.flagged >= 0 && !this.#flag?.isConnected) this.flag(this.flagged);
    if (follows) this.box.scrollTop = this.box.scrollHeight;
  }

  #unit(unit) {
    const css = unit.start < this.numPrompt ? "prompt" : "";
    if (unit.isEscape) return unit.text.map((text) => this.#cell(text, `x ${css}`.trim()));
    const length = unit.stop - unit.start;
    if (length === 1) return [this.#cell(unit.text, css)];
    const whole = element("span", `u u${length} ${css}`.trim());
    whole.append(element("b", "", unit.text));
    for (let place = 0; place < length; place++) whole.append(this.#cell("", ""));
    return [whole];
  }

  #cell(text, css) {
    const cell = element("i", css, text);
    cell.dataset.i = this.cells.length;
    this.cells.push(cell);
    return cell;
  }

  // Marks a cell; a fact that is null is not known.
  mark(index, { endsPatch, hasScratchpad, entropy }) {
    const cell = this.cells[index];
    if (!cell) return;
    cell.classList.toggle("end", endsPatch === true);
    cell.classList.toggle("pad", hasScratchpad === true);
    const level = entropy === null ? 0 : Math.round(NUM_SHADES * Math.min(1, Math.max(0, entropy / FULL_SHADE_NATS)));
    for (const name of Array.from(cell.classList)) if (/^e\d/.test(name)) cell.classList.remove(name);
    if (level) cell.classList.add(`e${level}`);
  }

  // Puts a sign before a byte's character; -1 takes it away.
  flag(byte) {
    this.flagged = byte;
    this.#flag?.remove();
    this.#flag = null;
    const cell = byte < 0 ? null : this.cells[byte + 1];
    if (!cell) return;
    this.#flag = element("span", "flag", "≠");
    this.#flag.title = "From here on the two texts are not the same";
    (cell.closest(".u") ?? cell).before(this.#flag);
  }

  select(index) {
    const at = Math.max(0, Math.min(this.cells.length - 1, index));
    this.unselect();
    this.selected = at;
    this.cells[at].classList.add("at");
    this.reveal();
    this.onSelect(at);
  }

  // Scrolls the chosen byte into view.
  reveal() { this.cells[this.selected]?.scrollIntoView({ block: "nearest", inline: "nearest" }); }

  unselect() {
    this.cells[this.selected]?.classList.remove("at");
    this.selected = -1;
  }

  // The nearest cell on the line above or below.
  #vertical(from, step) {
    const here = this.cells[from].getBoundingClientRect(), middle = (here.left + here.right) / 2;
    let best = from, bestGap = Infinity, line = null;
    for (let i = from + step; i >= 0 && i < this.cells.length; i += step) {
      const rect = this.cells[i].getBoundingClientRect(), y = (rect.top + rect.bottom) / 2;
      if (step > 0 ? rect.top < here.bottom - 1 : rect.bottom > here.top + 1) continue;
      if (line === null) line = y;
      if (Math.abs(y - line) > here.height / 2) break;
      const gap = Math.abs((rect.left + rect.right) / 2 - middle);
      if (gap < bestGap) { best = i; bestGap = gap; }
    }
    return best;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.cells.length === 0) return;
    const from = Math.max(0, this.selected), isFirst = this.selected < 0;
    const moves = {
      ArrowRight: () => (isFirst ? 0 : from + 1), ArrowLeft: () => from - 1, ArrowDown: () => this.#vertical(from, 1),
      ArrowUp: () => this.#vertical(from, -1), Home: () => 0, End: () => this.cells.length - 1,
    };
    if (!Object.hasOwn(moves, event.key)) return;
    event.preventDefault();
    this.select(moves[event.key]());
  }
}
