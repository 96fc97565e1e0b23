// What the page holds, and small words for numbers.
const PATCH_END = 1, SEPARATOR = 2, UNREAD = 4, SCRATCHPAD = 8, MAY_FIRE = 16;
const byId = (id) => document.getElementById(id);
const meta = JSON.parse(byId("data").textContent);

const toNumber = (text) => {
  const plain = String(text).trim().toLowerCase().replace("−", "-").replace("∞", "inf").replace("infinity", "inf");
  if (plain === "inf" || plain === "+inf") return Infinity;
  if (plain === "-inf") return -Infinity;
  return plain === "" ? NaN : Number(plain);
};
const whole = (n) => n.toLocaleString("en-US");
const signed = (x, digits) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(digits)}`;
const briefText = (t) => (Number.isFinite(t) ? t.toFixed(3) : t > 0 ? "∞" : "−∞");
// Shortest decimal that is the same float32: what the command line takes to give the same scratchpads.
const exactText = (t) => {
  if (!Number.isFinite(t)) return t > 0 ? "inf" : "-inf";
  for (let digits = 1; digits < 17; digits++) {
    const text = Number(t.toPrecision(digits));
    if (Math.fround(text) === Math.fround(t)) return String(text);
  }
  return String(t);
};

const fromBase64 = (text) => {
  const raw = atob(text), found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
};
const inflate = async (bytes) =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());

// Arrays lie behind one another, each as its lowest bytes, then its next ones.
const parts = {};
{
  const bytes = await inflate(fromBase64(byId("arrays").textContent));
  byId("arrays").textContent = "";
  let at = 0;
  for (const { name, itemBytes, count } of meta.parts) {
    if (itemBytes === 1) parts[name] = bytes.subarray(at, at + count);
    else {
      const words = itemBytes === 2 ? new Uint16Array(count) : new Uint32Array(count);
      for (let plane = 0; plane < itemBytes; plane++) {
        const from = at + plane * count;
        for (let i = 0; i < count; i++) words[i] |= bytes[from + i] << (8 * plane);
      }
      parts[name] = itemBytes === 4 ? new Float32Array(words.buffer) : words;
    }
    at += itemBytes * count;
  }
}
const { value, flags, score } = parts;
const entropy = meta.hasEntropy ? parts.entropy ?? score : null;
const count = flags.length, numBytes = meta.numBytes, points = meta.points.map((p) => ({ ...p, threshold: toNumber(p.threshold) }));

// Threshold by threshold, what was given as differences.
const summed = (flat, rows) => {
  const width = flat.length / rows, found = [flat.subarray(0, width)];
  for (let row = 1; row < rows; row++) {
    const now = flat.subarray(row * width, (row + 1) * width), before = found[row - 1];
    for (let i = 0; i < width; i++) now[i] += before[i];
    found.push(now);
  }
  return found;
};
const costs = summed(parts.cost, points.length);
const likely = parts.likelyIds ? { ids: summed(parts.likelyIds, points.length), steps: summed(parts.likelySteps, points.length) } : null;
const other = likely && {
  ids: likely.ids.map((row, t) => row.map((x, i) => x + parts.otherIds[t * row.length + i])),
  steps: likely.steps.map((row, t) => row.map((x, i) => x + parts.otherSteps[t * row.length + i])),
};
const numLikely = likely ? likely.ids[0].length / 5 : 0;

// Cells are bytes and separators, in order: window w is its separator and then its bytes.
const numWindows = count - numBytes, windowCells = meta.contextBytes + 1;
const windowOf = (i) => Math.min(numWindows - 1, Math.floor(i / windowCells));
const windowStart = (w) => w * windowCells;
const windowEnd = (w) => Math.min(count, (w + 1) * windowCells);
const byteOf = (i) => (flags[i] & SEPARATOR ? -1 : i - windowOf(i) - 1);
const cellOf = (byte) => byte + Math.min(numWindows - 1, Math.floor(byte / meta.contextBytes)) + 1;
// Cells that are read, in order, are the positions that likeliest bytes are kept for.
const positionOf = (i) => (flags[i] & UNREAD ? -1 : i - windowOf(i));
