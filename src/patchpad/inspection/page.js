"use strict";
(() => {
  const PATCH_END = 1, SEPARATOR = 2, UNREAD = 4;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const floatsOf = (text) => {
    const view = new DataView(bytesOf(text).buffer);
    return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
  };
  const whole = (n) => n.toLocaleString("en-US");
  const toNumber = (text) => {
    const plain = String(text).trim().toLowerCase().replace("−", "-").replace("∞", "inf").replace("infinity", "inf");
    if (plain === "inf" || plain === "+inf") return Infinity;
    if (plain === "-inf") return -Infinity;
    return plain === "" ? NaN : Number(plain);
  };
  // Shortest decimal that is the same float32: what the command line takes to give the same scratchpads.
  const exactText = (t) => {
    if (!Number.isFinite(t)) return t > 0 ? "inf" : "-inf";
    for (let digits = 1; digits < 17; digits++) {
      const text = Number(t.toPrecision(digits));
      if (Math.fround(text) === Math.fround(t)) return String(text);
    }
    return String(t);
  };
  const briefText = (t) => (Number.isFinite(t) ? t.toFixed(3) : t > 0 ? "∞" : "−∞");

  const score = floatsOf(data.score), nats = floatsOf(data.nats), flags = bytesOf(data.flags), value = bytesOf(data.value);
  const entropy = data.entropy === null ? null : floatsOf(data.entropy);
  const cells = Array.from(document.querySelectorAll("#bytes i"));
  const count = cells.length;

  // What does not move: the byte of each cell, its patch and where that patch begins.
  const byteOf = new Int32Array(count), patch = new Int32Array(count), patchStart = new Int32Array(count);
  let numPatches = 0;
  for (let i = 0, byte = 0, k = 0, begin = 0; i < count; i++) {
    if (flags[i] & SEPARATOR) { k = 0; begin = i; }
    byteOf[i] = flags[i] & SEPARATOR ? -1 : byte++;
    patch[i] = k;
    patchStart[i] = begin;
    if (flags[i] & PATCH_END) { k++; begin = i + 1; numPatches++; }
    cells[i].dataset.i = i;
  }

  // What moves with the threshold.
  const pad = Uint8Array.from(cells, (cell) => cell.classList.contains("pad"));
  const slot = new Int32Array(count), lag = new Int32Array(count);
  const totals = { pads: 0, meanLag: 0, maxLag: 0 };
  const measuredAt = toNumber(data.threshold);
  let threshold = measuredAt;

  const place = () => {
    const has = byId("slider") !== null, limit = Math.fround(threshold);
    let newest = -1, start = 0, pads = 0, lagSum = 0, numRead = 0, maxLag = 0;
    for (let i = 0; i < count; i++) {
      if (flags[i] & SEPARATOR) { start = i; newest = -1; }
      if (flags[i] & UNREAD) { slot[i] = -2; lag[i] = -1; continue; }
      const end = flags[i] & PATCH_END;
      // Without a threshold in nats, the scratchpads stay where the model put them.
      const fires = !end && (has ? score[i] > limit : pad[i] === 1);
      if (fires) pads++;
      if (fires !== (pad[i] === 1)) {
        pad[i] = fires ? 1 : 0;
        cells[i].classList.toggle("pad", fires);
      }
      if (end || fires) newest = i;
      slot[i] = newest;
      lag[i] = i - (newest < 0 ? start : newest);
      if (!(flags[i] & SEPARATOR)) {
        numRead++;
        lagSum += lag[i];
        if (lag[i] > maxLag) maxLag = lag[i];
      }
    }
    totals.pads = pads;
    totals.meanLag = numRead ? lagSum / numRead : 0;
    totals.maxLag = maxLag;
  };

  // Bits per byte: exact where a measured threshold gives as many trunk calls, else between the nearest two.
  const grid = data.grid.slice().sort((a, b) => a.calls - b.calls);
  const bitsPerByte = (calls) => {
    const exact = grid.find((point) => point.calls === calls);
    if (exact) return { value: exact.bpb, measured: true };
    let after = grid.findIndex((point) => point.calls > calls);
    if (after < 0) after = grid.length - 1;
    const high = grid[after], low = grid[Math.max(0, after - 1)];
    const share = high.calls > low.calls ? (calls - low.calls) / (high.calls - low.calls) : 0;
    return { value: low.bpb + share * (high.bpb - low.bpb), measured: false };
  };

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

  let announcing = 0;
  const showTotals = () => {
    const calls = numPatches + totals.pads, rate = calls / data.numBytes, bits = bitsPerByte(calls);
    const sign = bits.measured ? "" : "≈ ";
    const least = grid[0];
    const change = 100 * (bits.value / least.bpb - 1);
    byId("pads").textContent = whole(totals.pads);
    byId("pads-detail").textContent = `${(totals.pads / data.numBytes).toFixed(4)} per byte`;
    byId("patches").textContent = whole(numPatches);
    byId("calls").textContent = rate.toFixed(4);
    byId("calls-detail").textContent = `${whole(calls)} in all: patches and scratchpads`;
    byId("bpb").textContent = sign + bits.value.toFixed(4);
    byId("bpb-detail").textContent = grid.length < 2 ? "of this text"
      : calls === least.calls ? "of this text, without scratchpads"
      : `${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(2)} % against no scratchpads`;
    byId("lag").textContent = totals.meanLag.toFixed(2);
    byId("lag-detail").textContent = `bytes, ${totals.maxLag} at most`;
    if (dot) {
      dot.setAttribute("cx", onAxis(curve.dataset.x, rate).toFixed(1));
      dot.setAttribute("cy", onAxis(curve.dataset.y, bits.value).toFixed(1));
    }
    const status = byId("status");
    if (!status) return;
    status.textContent = `${whole(totals.pads)} scratchpads · ${rate.toFixed(3)} calls, `
      + `${sign}${bits.value.toFixed(3)} bits per byte`;
    clearTimeout(announcing);
    announcing = setTimeout(() => { byId("announce").textContent = status.textContent; }, 600);
  };

  // Shading.
  const level = new Uint8Array(count);
  cells.forEach((cell, i) => { level[i] = Number(/\be(\d+)\b/.exec(cell.className)?.[1] ?? 0); });
  const highest = (values) => values.reduce((most, v) => (v > most ? v : most), 0);
  // A guess among all bytes costs 5.5 nats; the rare byte that costs more must not make all others pale.
  const fullCost = Math.min(5.5, Math.max(0.5, Math.ceil(2 * highest(nats)) / 2));
  let shade = entropy ? "entropy" : "nats", longestLag = 1;
  const shadeAll = () => {
    const [values, full] = shade === "entropy" ? [entropy, data.fullNats] : shade === "nats" ? [nats, fullCost]
      : [lag, longestLag];
    for (let i = 0; i < count; i++) {
      const share = values[i] > 0 ? Math.min(1, values[i] / full) : 0, now = Math.round(10 * share);
      if (now === level[i]) continue;
      if (level[i]) cells[i].classList.remove(`e${level[i]}`);
      if (now) cells[i].classList.add(`e${now}`);
      level[i] = now;
    }
    byId("shade-text").textContent =
      shade === "entropy" ? `The deeper, the less sure the model is, after this byte, of the next: 0 to ${full} nats.`
      : shade === "nats" ? `The deeper, the more this byte itself surprised the model: 0 to ${full} nats or more`
        + (byId("slider") ? `, measured at the threshold ${briefText(measuredAt)}.` : ".")
      : `The deeper, the older the trunk output that this byte reads: 0 to ${full} bytes.`;
  };
  document.querySelectorAll("input[name=shade]").forEach((radio) => {
    if (radio.checked) shade = radio.value; // browsers keep a choice over a reload
    radio.addEventListener("change", () => { shade = radio.value; shadeAll(); });
  });

  // The byte in view, and what it reads.
  let at = -1, pinned = -1, marked = [];
  const mark = (i, name) => { cells[i].classList.add(name); marked.push([i, name]); };
  const field = (name, label, text) => {
    const element = document.createElement("span");
    element.dataset.field = name;
    if (label) {
      const title = document.createElement("b");
      title.textContent = label;
      element.append(title);
    }
    element.append(text);
    return element;
  };
  const glyphOf = (i) => {
    if (flags[i] & SEPARATOR) return "»";
    const unit = cells[i].closest(".u");
    const text = unit ? unit.querySelector("b").textContent : cells[i].textContent;
    return text === " " ? "space" : text;
  };
  // What bytes cost was measured at one threshold, and does not follow the slider.
  const whenMeasured = () => (threshold === measuredAt ? "" : ` (at ${briefText(measuredAt)})`);
  const nameOf = (i) => (flags[i] & SEPARATOR ? "the separator" : `byte ${whole(byteOf[i])}`);
  const readsText = (i) => {
    if (slot[i] < 0) return "the null context: no slot yet";
    const from = patchStart[slot[i]], kind = flags[slot[i]] & PATCH_END ? "commit" : "scratchpad";
    const pooled = slot[i] - from + 1;
    return `${kind} at ${nameOf(slot[i])}, ${pooled === 1 ? "which pools it alone" : `which pools ${pooled} positions`}`;
  };
  const show = (i) => {
    marked.forEach(([index, name]) => cells[index].classList.remove(name));
    marked = [];
    at = i;
    const readout = byId("readout");
    if (i < 0) return;
    mark(i, "at");
    const fields = [];
    const glyph = field("glyph", "", glyphOf(i));
    glyph.className = "glyph";
    fields.push(glyph);
    const byte = value[byteOf[i]];
    if (flags[i] & SEPARATOR) fields.push(field("byte", "", "separator"));
    else fields.push(field("byte", "byte", `${whole(byteOf[i])} = 0x${byte.toString(16).toUpperCase().padStart(2, "0")}`));
    if (!(flags[i] & SEPARATOR)) fields.push(field("nats", "cost", `${nats[i].toFixed(3)} nats${whenMeasured()}`));
    if (flags[i] & UNREAD) {
      fields.push(field("reads", "", "not read: the window ends here, and the next one starts afresh"));
    } else {
      if (entropy) fields.push(field("entropy", "next byte’s entropy", `${entropy[i].toFixed(3)} nats`));
      fields.push(field("patch", "patch", whole(patch[i])));
      fields.push(field("lag", "lag", lag[i] === 1 ? "1 byte" : `${lag[i]} bytes`));
      fields.push(field("reads", "reads", readsText(i)));
      if (slot[i] >= 0) {
        for (let j = patchStart[slot[i]]; j < slot[i]; j++) mark(j, "pool");
        mark(slot[i], "slot");
      }
    }
    readout.replaceChildren(...fields);
  };
  const box = byId("bytes");
  const indexAt = (target) => {
    const cell = target instanceof Element ? target.closest("#bytes i") : null;
    return cell ? Number(cell.dataset.i) : -1;
  };
  box.addEventListener("pointerover", (event) => { const i = indexAt(event.target); if (i >= 0 && i !== at) show(i); });
  box.addEventListener("pointerleave", () => { if (pinned >= 0) show(pinned); });
  box.addEventListener("click", (event) => { const i = indexAt(event.target); if (i >= 0) { pinned = i; show(i); } });
  const pin = (i) => {
    pinned = Math.max(0, Math.min(count - 1, i));
    show(pinned);
    cells[pinned].scrollIntoView({ block: "nearest" });
  };
  // The nearest cell on the line above or below.
  const vertical = (from, step) => {
    const here = cells[from].getBoundingClientRect();
    const middle = (here.left + here.right) / 2;
    let best = from, bestGap = Infinity, line = null;
    for (let i = from + step; i >= 0 && i < count; i += step) {
      const rect = cells[i].getBoundingClientRect(), y = (rect.top + rect.bottom) / 2;
      if (step > 0 ? rect.top < here.bottom - 1 : rect.bottom > here.top + 1) continue;
      if (line === null) line = y;
      if (Math.abs(y - line) > here.height / 2) break;
      const gap = Math.abs((rect.left + rect.right) / 2 - middle);
      if (gap < bestGap) { best = i; bestGap = gap; }
    }
    return best;
  };
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const from = pinned < 0 ? 0 : pinned, first = pinned < 0;
    const moves = {
      ArrowRight: () => (first ? 0 : from + 1), ArrowLeft: () => from - 1, ArrowDown: () => vertical(from, 1),
      ArrowUp: () => vertical(from, -1), Home: () => 0, End: () => count - 1,
      Enter: () => (slot[from] >= 0 ? slot[from] : from),
    };
    if (!Object.hasOwn(moves, event.key)) return;
    event.preventDefault();
    pin(moves[event.key]());
  });

  const refresh = () => {
    place();
    showTotals();
    if (shade === "lag") shadeAll();
    if (at >= 0) show(at);
  };
  const slider = byId("slider");
  if (slider) {
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) {
      if (flags[i] & (PATCH_END | UNREAD)) continue;
      low = Math.min(low, score[i]);
      high = Math.max(high, score[i]);
    }
    const digits = Math.min(6, Math.max(0, -Math.floor(Math.log10(Math.max(high - low, 1e-4) / 200))));
    const units = 10 ** digits;
    // One step beyond the scores on either side means infinity.
    slider.min = Math.floor(low * units) - 1;
    slider.max = Math.ceil(high * units) + 1;
    const ofSlider = () => {
      const at = Number(slider.value);
      return at <= Number(slider.min) ? -Infinity : at >= Number(slider.max) ? Infinity : at / units;
    };
    const number = byId("number");
    const presets = { none: Infinity, stored: toNumber(data.stored), every: -Infinity };
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
    for (const [id, preset] of Object.entries(presets)) {
      byId(id).addEventListener("click", () => { use(preset, null); remember(); });
    }
    byId("dial").addEventListener("submit", (event) => event.preventDefault());
    addEventListener("hashchange", () => { const t = fromAddress(); if (t !== null) use(t, null); });
    const chosen = threshold;
    threshold = Infinity;
    place();
    longestLag = Math.max(1, totals.maxLag);
    use(fromAddress() ?? chosen, null);
  } else {
    place();
    longestLag = Math.max(1, totals.maxLag);
    refresh();
  }
  shadeAll();
})();
