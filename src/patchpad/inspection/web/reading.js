// What a byte reads, drawn over the text and told beside it.
const layer = byId("over");
const rectsOf = (first, last) => {
  const found = [];
  for (let i = first; i <= last;) {
    const unit = unitAt(i);
    for (const rect of unit.span.getClientRects()) if (rect.width > 0) found.push(rect);
    i = unit.first + unit.cells;
  }
  // One box for what stands side by side in a line.
  const lines = [];
  for (const rect of found) {
    const line = lines.find((one) => Math.abs(one.top - rect.top) < rect.height / 2
      && rect.left < one.right + 2 && rect.right > one.left - 2);
    if (line) { line.left = Math.min(line.left, rect.left); line.right = Math.max(line.right, rect.right); }
    else lines.push({ left: rect.left, right: rect.right, top: rect.top, bottom: rect.bottom });
  }
  return lines;
};
const drawOver = (first, last, name, label) => {
  const origin = layer.getBoundingClientRect();
  rectsOf(first, last).forEach((rect, at) => {
    const element = document.createElement("div");
    element.className = `over ${name}`;
    Object.assign(element.style, {
      left: `${rect.left - origin.left}px`, top: `${rect.top - origin.top}px`,
      width: `${rect.right - rect.left}px`, height: `${rect.bottom - rect.top}px`,
    });
    if (at === 0 && label) element.dataset.label = label;
    layer.append(element);
  });
};
const drawReading = () => {
  layer.replaceChildren();
  const i = cursor.at;
  if (i < 0) return;
  if (!(flags[i] & UNREAD)) {
    const s = slot[i], start = s < 0 ? windowStart(windowOf(i)) - 1 : s;
    if (s >= 0) {
      const [first, last] = stretchOf(s);
      drawOver(first, last, `reads ${kindOf(s)}`, kindOf(s));
      drawOver(s, s, `newest ${kindOf(s)}`, "");
    }
    if (lag[i] > 0) drawOver(Math.max(start + 1, i - lag[i] + 1), i, "behind", `lag ${lag[i]}`);
  }
  drawOver(i, i, "now", "");
};

const glyphOf = (byte) => {
  if (byte === 32) return "space";
  if (byte === 10) return "↵";
  return byte > 32 && byte < 127 ? String.fromCharCode(byte) : hexOf(byte);
};
const piece = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const field = (name, label, text) => {
  const element = piece("span");
  element.dataset.field = name;
  if (label) element.append(piece("b", label));
  element.append(text);
  return element;
};
const nameOf = (i) => (flags[i] & SEPARATOR ? "the separator" : `byte ${whole(byteOf(i))}`);
const readsText = (i) => {
  const s = slot[i];
  if (s < 0) return "the null context: no slot yet";
  const [first, last] = stretchOf(s), pooled = last - first + 1;
  const what = meta.commitsTokens ? `which stands for ${pooled} bytes`
    : pooled === 1 ? "which pools it alone" : `which pools ${pooled} positions`;
  return `${kindOf(s)} at ${nameOf(s)}, ${what}`;
};
const about = () => (standing.isMeasured ? "" : "≈ ");
const gainText = (gain) => (Math.abs(gain) < 0.005 ? "scratchpads change nothing"
  : `${about()}${Math.abs(gain).toFixed(2)} bits ${gain > 0 ? "saved by scratchpads" : "more with scratchpads"}`);
const percent = (p) => (p >= 0.005 ? `${Math.round(100 * p)} %` : "<1 %");

// The likeliest next bytes where they were measured: at the slider's threshold, or the nearest to it.
const likelyList = (title, ids, steps, position, next) => {
  const column = piece("div", "", "likely");
  column.append(piece("p", title));
  const list = piece("ol");
  for (let k = 5 * position; k < 5 * position + 5; k++) {
    const p = (steps[k] / 255) ** 2, item = piece("li");
    item.style.setProperty("--p", p.toFixed(3));
    item.append(piece("span", glyphOf(ids[k]), "glyph"), piece("span", percent(p), "percent"));
    if (ids[k] === next) {
      item.className = "next";
      item.append(piece("span", "← the text", "has"));
    }
    list.append(item);
  }
  column.append(list);
  return column;
};
const likelyLists = (i) => {
  const position = positionOf(i);
  if (!likely || position < 0) return null;
  const element = piece("div", "", "likelies");
  if (position >= numLikely) {
    element.append(piece("p", `The likeliest next bytes are kept for the first ${whole(numLikely)} bytes or so of a text.`, "note"));
    return element;
  }
  const t = standing.nearest, point = points[t].threshold, byte = byteOf(i) + 1;
  const next = i + 1 < count && flags[i] & SEPARATOR ? value[byteOf(i + 1)] : byte < numBytes && !(flags[i + 1] & SEPARATOR) ? value[byte] : -1;
  const limit = Math.fround(point), start = windowStart(windowOf(i));
  let newest = i;
  while (newest >= start && !firesAt(newest, limit) && !(flags[newest] & PATCH_END)) newest--;
  const reads = newest >= start && firesAt(newest, limit);
  const heading = piece("p", "Likeliest next bytes" + (standing.isMeasured ? "" : `, at ${briefText(point)}, the measured threshold nearest to this`), "over-lists");
  element.append(heading);
  if (reads) {
    element.append(likelyList("with the newest scratchpad", likely.ids[t], likely.steps[t], position, next));
    element.append(likelyList("without it", other.ids[t], other.steps[t], position, next));
  } else {
    element.append(likelyList("its newest slot is not a scratchpad", likely.ids[t], likely.steps[t], position, next));
  }
  return element;
};

let saying = 0;
const say = (text) => {
  clearTimeout(saying);
  saying = setTimeout(() => { byId("announce").textContent = text; }, 300);
};
const show = (i) => {
  cursor.at = i;
  if (i < 0) { layer.replaceChildren(); return; }
  drawReading();
  const fields = [], unit = unitAt(i), byte = byteOf(i);
  const glyph = field("glyph", "", unit.text === " " ? "space" : unit.text);
  glyph.className = "glyph";
  glyph.dir = "auto";
  fields.push(glyph);
  if (byte < 0) fields.push(field("byte", "", "separator"));
  else fields.push(field("byte", "byte", `${whole(byte)} = 0x${hexOf(value[byte])}`));
  if (unit.cells > 1) {
    const all = [];
    for (let k = 0; k < unit.cells; k++) all.push(hexOf(value[byteOf(unit.first + k)]));
    const shown = field("part", "of its character", `${i - unit.first + 1} of ${unit.cells}: `);
    all.forEach((text, k) => shown.append(piece(unit.first + k === i ? "mark" : "span", text), k < all.length - 1 ? " " : ""));
    fields.push(shown);
  }
  if (byte >= 0) {
    fields.push(field("cost", "cost", `${about()}${costOf(byte).toFixed(2)} bits`));
    if (hasGains) {
      const gain = field("gain", "gain", gainText(gainOf(byte)));
      fields.push(gain);
    }
  }
  if (flags[i] & UNREAD) {
    fields.push(field("reads", "", "not read: the window ends here, and the next one starts afresh"));
  } else {
    if (entropy) fields.push(field("entropy", "next byte’s entropy", `${entropy[i].toFixed(3)} nats`));
    fields.push(field("patch", "patch", whole(patchOf(i))));
    fields.push(field("lag", "lag", lag[i] === 1 ? "1 byte" : `${lag[i]} bytes`));
    fields.push(field("reads", "reads", readsText(i)));
  }
  const facts = piece("div", "", "facts-of-byte");
  facts.append(...fields);
  const lists = likelyLists(i);
  byId("readout").replaceChildren(facts, ...(lists ? [lists] : []));
  say(fields.map((one) => Array.from(one.childNodes, (node) => node.textContent).join(" ")).join(", "));
};
