// The text: its windows as they are read, with cells only where they can be seen.
const MOST_CELLS = 2048;
const box = byId("bytes");
const RIGHT_TO_LEFT = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
const HIDDEN = /[\p{C}\p{Z}]/u;
const LONE_MARK = /^\p{M}/u;
const JOINERS = /[\u200c\u200d]/;
const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "grapheme" }) : null;
const graphemes = (text) => (segmenter ? Array.from(segmenter.segment(text), (one) => one.segment) : Array.from(text));

// The character that starts at a byte, and its length; "" where the bytes are not UTF-8.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const characterAt = (byte, end) => {
  const lead = value[byte];
  if (lead < 0x80) return [String.fromCharCode(lead), 1];
  const length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (!length || byte + length > end) return ["", 1];
  try {
    return [decoder.decode(value.subarray(byte, byte + length)), length];
  } catch {
    return ["", 1];
  }
};

// What is shown as one thing: a character as readers see it, a byte that is none, a newline, a separator.
const unitsOf = (first, end) => {
  const units = [];
  let run = "", lengths = [], runStart = first;
  const flush = () => {
    let cell = runStart, at = 0;
    for (const text of graphemes(run)) {
      let cells = 0;
      for (let left = Array.from(text).length; left > 0; left--) cells += lengths[at++];
      units.push({ first: cell, cells, text: (LONE_MARK.test(text) ? "◌" : "") + text, kind: "char" });
      cell += cells;
    }
    run = "";
    lengths = [];
  };
  const lastByte = byteOf(end - 1) + 1;
  for (let i = first; i < end;) {
    if (flags[i] & SEPARATOR) { flush(); units.push({ first: i, cells: 1, text: "»", kind: "sep" }); i++; runStart = i; continue; }
    const [text, length] = characterAt(byteOf(i), lastByte);
    const isShown = text === " " || (text !== "" && !HIDDEN.test(text)) || (run !== "" && JOINERS.test(text));
    if (isShown) {
      if (run === "") runStart = i;
      run += text;
      lengths.push(length);
    } else {
      flush();
      if (text === "\n") units.push({ first: i, cells: 1, text: "↵", kind: "newline" });
      else for (let k = 0; k < length; k++) units.push({ first: i + k, cells: 1, text: hexOf(value[byteOf(i + k)]), kind: "hex" });
    }
    i += length;
  }
  flush();
  return units;
};
const hexOf = (byte) => byte.toString(16).toUpperCase().padStart(2, "0");

// Blocks: at most a window, and in long windows some lines of it.
const blocks = [];
for (let w = 0; w < numWindows; w++) {
  for (let first = windowStart(w); first < windowEnd(w);) {
    let end = Math.min(windowEnd(w), first + MOST_CELLS);
    while (end < windowEnd(w) && value[byteOf(end - 1)] !== 10) end++;
    if (windowEnd(w) - end < MOST_CELLS / 8) end = windowEnd(w);
    blocks.push({ first, end, window: w, element: null, units: null, spans: null });
    first = end;
  }
}
const blockOf = (i) => {
  let low = 0, high = blocks.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (blocks[middle].first <= i) low = middle; else high = middle - 1;
  }
  return blocks[low];
};

// Far from view, a block is its text alone: it can be read and searched for, and takes the same room.
const UNSAFE = /[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;
const plainly = (block) => {
  const from = block.first + (flags[block.first] & SEPARATOR ? 1 : 0);
  const text = from < block.end ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(value.subarray(byteOf(from), byteOf(block.end - 1) + 1)) : "";
  const lines = text.split("\n");
  if (lines.length > 1 && lines.at(-1) === "") lines.pop();
  return lines.map((line, at) => {
    const element = document.createElement("div");
    element.dir = "auto";
    element.textContent = (at === 0 && from > block.first ? "»" : "") + line.replace(UNSAFE, "·") + (at < lines.length - 1 ? "↵" : "");
    return element;
  });
};
const undraw = (block) => {
  block.units = block.spans = null;
  block.element.replaceChildren(...plainly(block));
};
const draw = (block) => {
  if (block.units) return;
  block.units = unitsOf(block.first, block.end);
  block.spans = [];
  const lines = [];
  let line = null;
  for (const unit of block.units) {
    if (!line) {
      line = document.createElement("div");
      line.dir = "auto";
      lines.push(line);
    }
    const span = document.createElement("i");
    span.textContent = unit.text;
    span.dataset.i = unit.first;
    unit.isRightToLeft = unit.kind === "char" && RIGHT_TO_LEFT.test(unit.text);
    unit.span = span;
    for (let k = 0; k < unit.cells; k++) block.spans.push(unit);
    paint(unit);
    line.append(span);
    if (unit.kind === "newline") line = null;
  }
  block.element.replaceChildren(...lines);
};
const drawn = () => blocks.filter((block) => block.units);
const unitAt = (i) => {
  const block = blockOf(i);
  draw(block);
  return block.spans[i - block.first];
};

// Shading.
const WORDS = { char: "", sep: "sep", newline: "x", hex: "x" };
const GUESS_BITS = 8; // what a byte costs without a model; the rare byte that costs more must not make all others pale
const highest = (values) => values.reduce((most, v) => (v > most ? v : most), 0);
const fullCost = Math.min(GUESS_BITS, Math.max(1, Math.ceil(highest(costs[0]) / meta.costSteps)));
let shade = document.querySelector("input[name=shade]:checked").value, longestLag = 1;
// From -10 to 10: how deep a cell is shaded; below 0 only where scratchpads cost bits.
const levelOf = (i) => {
  const byte = byteOf(i);
  const share = shade === "entropy" ? entropy[i] / meta.fullNats : shade === "lag" ? lag[i] / longestLag
    : byte < 0 ? 0 : shade === "cost" ? costOf(byte) / fullCost : gainOf(byte) / meta.fullGain;
  if (Number.isNaN(share) || (share < 0 && shade !== "gain")) return 0;
  return Math.round(10 * Math.max(-1, Math.min(1, share)));
};
const COLOURS = { entropy: "--entropy-rgb", cost: "--entropy-rgb", lag: "--lag-rgb", gain: "--saved-rgb" };
const colourOf = (level) =>
  level === 0 ? "transparent" : `rgb(var(${level < 0 ? "--lost-rgb" : COLOURS[shade]})/calc(${Math.abs(level)}*var(--depth)))`;
const paint = (unit) => {
  const { span, first, cells } = unit, style = span.style;
  if (cells === 1) {
    const level = levelOf(first);
    const names = [WORDS[unit.kind], level ? `e${Math.abs(level)}` : "", level < 0 ? "lost" : "",
      pad[first] ? "pad" : "", flags[first] & PATCH_END && unit.kind !== "sep" ? "end" : "", unit.isRightToLeft ? "rtl" : ""];
    span.className = names.filter(Boolean).join(" ");
    return;
  }
  // Part by part, one for each byte, from where the character begins.
  const towards = unit.isRightToLeft ? "to left" : "to right", layers = [];
  const stops = (colour) => {
    const found = [];
    for (let k = 0; k < cells; k++) {
      const wanted = colour(first + k);
      found.push(`${wanted} ${((100 * k) / cells).toFixed(2)}% ${((100 * (k + 1)) / cells).toFixed(2)}%`);
    }
    return `linear-gradient(${towards},${found.join(",")})`;
  };
  let any = 0;
  for (let k = 0; k < cells; k++) {
    if (flags[first + k] & PATCH_END) {
      const at = (100 * (k + 1)) / cells, from = unit.isRightToLeft ? 100 - at : at;
      layers.push(`linear-gradient(var(--commit),var(--commit)) ${from.toFixed(2)}% 0/.14em 100% no-repeat`);
    }
    any |= pad[first + k];
  }
  if (any) layers.push(`${stops((i) => (pad[i] ? "var(--scratchpad)" : "transparent"))} 0 100%/100% .2em no-repeat`);
  layers.push(stops((i) => colourOf(levelOf(i))));
  style.background = layers.join(",");
  span.className = unit.isRightToLeft ? "many rtl" : "many";
};
const repaint = () => {
  box.dataset.shade = shade;
  for (const block of drawn()) block.units.forEach(paint);
};

// Blocks come into being near the view, and are plain text again far from it.
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const block = blocks[Number(entry.target.dataset.block)];
    if (entry.isIntersecting) draw(block);
    else if (block.units && !holds(block)) undraw(block);
  }
}, { rootMargin: "700px 0px" });
const holds = (block) => cursor.pinned >= block.first && cursor.pinned < block.end;
const cursor = { at: -1, pinned: -1 };
const build = () => {
  const elements = blocks.map((block, at) => {
    const element = document.createElement("div");
    element.className = "block";
    element.dataset.block = at;
    if (block.window > 0 && flags[block.first] & SEPARATOR) {
      element.dataset.window = `window ${whole(block.window + 1)}, from byte ${whole(byteOf(block.first + 1))}`;
    }
    block.element = element;
    return element;
  });
  blocks.forEach(undraw);
  byId("lines").replaceChildren(...elements);
  elements.forEach((element) => observer.observe(element));
};
