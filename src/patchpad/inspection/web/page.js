// The page: totals, the dial, the choice of shades, and how one moves through the text.
const curve = byId("curve");
let dot = null;
if (curve) {
  dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  dot.setAttribute("class", "now");
  dot.setAttribute("r", "7");
  curve.append(dot);
}
const onAxis = (text, at) => {
  const [low, high, start, end] = text.split(" ").map(Number);
  return start + ((at - low) / (high - low)) * (end - start);
};

const showTotals = () => {
  const calls = meta.numPatches + totals.pads, rate = calls / numBytes, bits = bitsPerByte(), sign = about();
  const change = 100 * (bits / points[0].bpb - 1);
  byId("pads").textContent = whole(totals.pads);
  byId("pads-detail").textContent = `${(totals.pads / numBytes).toFixed(4)} per byte`;
  byId("calls").textContent = rate.toFixed(4);
  byId("calls-detail").textContent = `${whole(calls)} in all: patches and scratchpads`;
  byId("bpb").textContent = sign + bits.toFixed(4);
  byId("bpb-detail").textContent = "8 = no model; " + (points.length < 2 ? "of this text"
    : standing.isMeasured && standing.low === 0 ? "without scratchpads" : `${signed(change, 2)} % against no scratchpads`);
  byId("lag").textContent = totals.meanLag.toFixed(2);
  byId("lag-detail").textContent = `bytes, ${totals.maxLag} at most`;
  if (dot) {
    dot.setAttribute("cx", onAxis(curve.dataset.x, rate).toFixed(1));
    dot.setAttribute("cy", onAxis(curve.dataset.y, bits).toFixed(1));
  }
  const status = byId("status");
  if (status) {
    status.textContent = `${whole(totals.pads)} scratchpads · ${rate.toFixed(3)} calls, ${sign}${bits.toFixed(3)} bits per byte`;
  }
};

const SHADES = {
  gain: () => `Green: bits that scratchpads save of this byte; magenta: bits that they cost. The deepest is ${meta.fullGain} ${meta.fullGain === 1 ? "bit" : "bits"} or more, `
    + "against no scratchpads at all" + (standing.isMeasured ? "." : "; here read between the two measured thresholds around this one."),
  entropy: () => `The deeper, the less sure the model is, after this byte, of the next: 0 to ${meta.fullNats} nats.`,
  cost: () => `The deeper, the more bits this byte itself cost: 0 to ${fullCost}${fullCost === GUESS_BITS ? " or more; 8 = no model" : ""}.`,
  lag: () => `The deeper, the older the trunk output that this byte reads: 0 to ${longestLag} bytes.`,
};
const showLegend = () => {
  byId("shade-key").dataset.shade = shade;
  byId("shade-text").textContent = SHADES[shade]();
};
document.querySelectorAll("input[name=shade]").forEach((radio) => {
  radio.addEventListener("change", () => { shade = radio.value; showLegend(); repaint(); });
});
const refresh = () => {
  place();
  stand();
  showTotals();
  showLegend();
  repaint();
  if (cursor.at >= 0) show(cursor.at);
};

// Pointing. In a character of several bytes, the part that is pointed at is the byte.
const indexAt = (event) => {
  const span = event.target instanceof Element ? event.target.closest("#lines i") : null;
  if (!span) return -1;
  const unit = unitAt(Number(span.dataset.i)), rect = span.getBoundingClientRect();
  const along = (unit.isRightToLeft ? rect.right - event.clientX : event.clientX - rect.left) / (rect.width || 1);
  return unit.first + Math.max(0, Math.min(unit.cells - 1, Math.floor(along * unit.cells)));
};
box.addEventListener("pointermove", (event) => { const i = indexAt(event); if (i >= 0 && i !== cursor.at) show(i); });
box.addEventListener("pointerleave", () => { if (cursor.pinned >= 0) show(cursor.pinned); });
box.addEventListener("click", (event) => { const i = indexAt(event); if (i >= 0) { cursor.pinned = i; show(i); } });

const pin = (i) => {
  cursor.pinned = Math.max(0, Math.min(count - 1, i));
  unitAt(cursor.pinned).span.scrollIntoView({ block: "nearest" });
  show(cursor.pinned);
  requestAnimationFrame(() => requestAnimationFrame(drawReading)); // what was far away may have moved meanwhile
};
// The nearest character on the line above or below.
const vertical = (from, step) => {
  const here = unitAt(from), home = here.span.getBoundingClientRect(), middle = (home.left + home.right) / 2;
  let best = from, bestGap = Infinity, line = null;
  for (let i = step > 0 ? here.first + here.cells : here.first - 1; i >= 0 && i < count;) {
    const unit = unitAt(i), rect = unit.span.getBoundingClientRect(), y = (rect.top + rect.bottom) / 2;
    i = step > 0 ? unit.first + unit.cells : unit.first - 1;
    if (step > 0 ? rect.top < home.bottom - 1 : rect.bottom > home.top + 1) continue;
    if (line === null) line = y;
    if (Math.abs(y - line) > home.height / 2) break;
    const gap = Math.abs((rect.left + rect.right) / 2 - middle);
    if (gap < bestGap) { best = unit.first; bestGap = gap; }
  }
  return best;
};
const MOVES = {
  ArrowRight: (from) => from + 1, ArrowLeft: (from) => from - 1,
  ArrowDown: (from) => vertical(from, 1), ArrowUp: (from) => vertical(from, -1),
  PageDown: (from) => Math.min(count - 1, windowEnd(windowOf(from))), PageUp: (from) => {
    const start = windowStart(windowOf(from));
    return from > start ? start : windowStart(Math.max(0, windowOf(from) - 1));
  },
  Home: () => 0, End: () => count - 1, Enter: (from) => (slot[from] >= 0 ? slot[from] : from),
};
box.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(MOVES, event.key)) return;
  event.preventDefault();
  pin(cursor.pinned < 0 && event.key.startsWith("Arrow") ? 0 : MOVES[event.key](Math.max(0, cursor.pinned)));
});
new ResizeObserver(() => { if (cursor.at >= 0) drawReading(); }).observe(box);
addEventListener("beforeprint", () => { if (blocks.length <= 64) blocks.forEach(draw); });

const slider = byId("slider");
const makeDial = () => {
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < count; i++) {
    if (flags[i] & UNREAD || !firesAt(i, -Infinity)) continue;
    low = Math.min(low, score[i]);
    high = Math.max(high, score[i]);
  }
  if (low > high) low = high = 0;
  const digits = Math.min(6, Math.max(0, -Math.floor(Math.log10(Math.max(high - low, 1e-4) / 200))));
  const units = 10 ** digits;
  // One step beyond the scores on either side means infinity.
  slider.min = Math.floor(low * units) - 1;
  slider.max = Math.ceil(high * units) + 1;
  const ticks = new Map();
  for (const { threshold: t } of points) if (Number.isFinite(t)) ticks.set(Math.round(t * units), t);
  byId("measured").replaceChildren(...Array.from(ticks, ([at, t]) => Object.assign(document.createElement("option"), { value: at, label: briefText(t) })));
  const ofSlider = () => {
    const at = Number(slider.value);
    return at <= Number(slider.min) ? -Infinity : at >= Number(slider.max) ? Infinity : ticks.get(at) ?? at / units;
  };
  const number = byId("number");
  const presets = { none: Infinity, stored: toNumber(meta.stored), every: -Infinity };
  byId("stored").textContent = `stored ${briefText(presets.stored)}`;
  let remembering = 0;
  const use = (t, from) => {
    threshold = t;
    if (from !== slider) {
      const inside = Math.max(Number(slider.min) + 1, Math.min(Number(slider.max) - 1, Math.round(t * units)));
      slider.value = t === Infinity ? slider.max : t === -Infinity ? slider.min : inside;
    }
    if (from !== number) number.value = exactText(t);
    number.removeAttribute("aria-invalid");
    slider.setAttribute("aria-valuetext", t === Infinity ? "infinite: no scratchpads"
      : t === -Infinity ? "minus infinity: the trunk at every byte" : `${briefText(t)} nats`);
    for (const [id, preset] of Object.entries(presets)) byId(id).setAttribute("aria-pressed", String(preset === t));
    refresh();
  };
  const remember = () => {
    say(byId("status").textContent);
    clearTimeout(remembering);
    remembering = setTimeout(() => {
      try { history.replaceState(null, "", `#threshold=${exactText(threshold)}`); } catch { /* not allowed here */ }
    }, 300);
  };
  const fromAddress = () => {
    const t = toNumber(decodeURIComponent(/[#&]threshold=([^&]*)/.exec(location.hash)?.[1] ?? ""));
    return Number.isNaN(t) ? null : t;
  };
  slider.addEventListener("input", () => { use(ofSlider(), slider); remember(); });
  number.addEventListener("input", () => {
    const t = toNumber(number.value);
    if (Number.isNaN(t)) { number.setAttribute("aria-invalid", "true"); return; }
    use(t, number);
    remember();
  });
  number.addEventListener("change", () => use(threshold, null));
  for (const [id, preset] of Object.entries(presets)) byId(id).addEventListener("click", () => { use(preset, null); remember(); });
  byId("dial").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => { const t = fromAddress(); if (t !== null) use(t, null); });
  const chosen = threshold;
  threshold = Infinity;
  place();
  longestLag = Math.max(1, totals.maxLag);
  use(fromAddress() ?? chosen, null);
};

place();
longestLag = Math.max(1, totals.maxLag);
build();
if (slider) makeDial(); else refresh();
document.documentElement.dataset.ready = "true";
