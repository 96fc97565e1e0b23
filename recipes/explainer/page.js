"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = (text) => new DataView(bytesOf(text).buffer);
  const floatsOf = (text) => {
    const from = view(text);
    return Float32Array.from({ length: from.byteLength / 4 }, (_, i) => from.getFloat32(4 * i, true));
  };
  const shortsOf = (text) => {
    const from = view(text);
    return Uint16Array.from({ length: from.byteLength / 2 }, (_, i) => from.getUint16(2 * i, true));
  };
  const texts = data.texts.map((one) => ({
    bytes: bytesOf(one.text),
    entropy: floatsOf(one.entropy),
    millibits: Object.fromEntries(Object.entries(one.millibits).map(([size, rows]) => [size, shortsOf(rows)])),
  }));
  const glyphOf = (byte) => (byte === 0x20 ? "␣" : byte === 0x0a ? "↵" : String.fromCharCode(byte));
  const nameOf = (text, n) => (n === 0 ? "the start »" : `byte ${n} “${glyphOf(text.bytes[n - 1])}”`);

  const stored = data.threshold;
  let text = texts[0], size = data.patchSize, threshold = stored;

  // Position 0 is the separator before the text, position n its n-th byte.
  const slotsOf = () => {
    const count = text.bytes.length + 1, limit = Math.fround(threshold);
    const end = [], pad = [], slot = [], lag = [];
    let newest = -1, pads = 0, patches = 0, lagSum = 0, longest = 0;
    for (let n = 0; n < count; n++) {
      end[n] = n > 0 && n % size === 0;
      pad[n] = !end[n] && text.entropy[n] > limit;
      if (end[n] || pad[n]) newest = n;
      if (end[n]) patches++;
      if (pad[n]) pads++;
      slot[n] = newest;
      lag[n] = n - Math.max(newest, 0);
      if (n > 0) lagSum += lag[n];
      longest = Math.max(longest, lag[n]);
    }
    return { end, pad, slot, lag, pads, patches, meanLag: lagSum / (count - 1), longest };
  };
  const millibitsOf = (pads) => {
    const length = text.bytes.length;
    return text.millibits[size].subarray(pads * length, (pads + 1) * length);
  };
  const meanBits = (pads) => millibitsOf(pads).reduce((sum, cost) => sum + cost, 0) / 1000 / text.bytes.length;

  const strip = byId("strip");
  let columns = Array.from(strip.querySelectorAll(".col"));
  const build = () => {
    columns = [];
    const parts = [];
    for (let n = 0; n <= text.bytes.length; n++) {
      const column = document.createElement("span");
      for (const [tag, name] of [["i", "cost"], ["b", ""], ["i", "slot"], ["i", "lag"]]) {
        const part = document.createElement(tag);
        if (name) part.className = name;
        column.append(part);
      }
      column.children[1].textContent = n === 0 ? "»" : glyphOf(text.bytes[n - 1]);
      columns.push(column);
      parts.push(column);
      if (n > 0 && text.bytes[n - 1] === 0x0a) {
        const line = document.createElement("span");
        line.className = "break";
        parts.push(line);
      }
    }
    strip.replaceChildren(...parts);
  };

  let slots = slotsOf(), at = -1, announcing = 0;
  const nats = (value) => `${value.toFixed(2)} nats`;
  const showByte = () => {
    const readout = byId("readout");
    if (at < 0) return;
    const slot = slots.slot[at], reads = slot < 0 ? "nothing from the trunk, which has not run yet"
      : `the ${slots.end[slot] ? "commit" : "scratchpad"} at ${slot === at ? "this very byte" : nameOf(text, slot)}`;
    const costs = millibitsOf(slots.pads);
    const next = at < text.bytes.length
      ? ` The next byte, “${glyphOf(text.bytes[at])}”, then costs ${(costs[at] / 1000).toFixed(2)} bits.`
      : " The text ends here.";
    readout.textContent = `At ${nameOf(text, at)} the model reads ${reads}: lag ${slots.lag[at]}. `
      + `Its entropy head is ${nats(text.entropy[at])} unsure of what follows.${next}`;
  };
  const classOf = (n) => {
    const slot = at < 0 ? -1 : slots.slot[at], first = slot < 1 ? slot : Math.floor((slot - 1) / size) * size + 1;
    const shade = Math.round(10 * Math.min(1, text.entropy[n] / data.fullNats));
    return ["col", n === 0 && "sep", slots.end[n] && "end", slots.pad[n] && "pad", shade && `e${shade}`,
      at >= 0 && n === slot && "read", at >= 0 && n >= (first === 1 ? 0 : first) && n < slot && "pool",
      n === at && "at", at >= 0 && n === at + 1 && "next"].filter(Boolean).join(" ");
  };
  const showTotals = () => {
    const calls = slots.patches + slots.pads, count = text.bytes.length;
    const bits = meanBits(slots.pads), change = 100 * (bits / meanBits(0) - 1);
    byId("calls").textContent = calls;
    byId("calls-detail").textContent = `${slots.patches} at patch ends, ${slots.pads} for scratchpads; `
      + `${(calls / count).toFixed(2)} per byte`;
    byId("cache").textContent = slots.patches;
    byId("cache-detail").textContent =
      `${Math.floor((slots.patches * data.entryBytes) / 1024)} kB, one entry for each finished patch`;
    byId("lag").textContent = slots.meanLag.toFixed(2);
    byId("lag-detail").textContent = `bytes, ${slots.longest} at most`;
    byId("bits").textContent = bits.toFixed(3);
    byId("bits-detail").textContent = slots.pads === 0 ? "without scratchpads"
      : `${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(1)} % against no scratchpads`;
    byId("outside").classList.toggle("now", size !== data.patchSize);
    clearTimeout(announcing);
    announcing = setTimeout(() => {
      byId("announce").textContent = `${calls} trunk calls, ${slots.patches} cache entries, `
        + `mean lag ${slots.meanLag.toFixed(2)}, ${bits.toFixed(3)} bits per byte`;
    }, 600);
  };
  const mark = () => columns.forEach((column, n) => { column.className = classOf(n); });
  const update = () => {
    slots = slotsOf();
    const costs = millibitsOf(slots.pads);
    columns.forEach((column, n) => {
      column.style.setProperty("--bits", n === 0 ? "0.000" : (costs[n - 1] / 1000).toFixed(3));
      column.style.setProperty("--behind", slots.lag[n]);
      column.children[3].textContent = slots.lag[n];
    });
    mark();
    showTotals();
    showByte();
  };

  // The byte in view.
  const choose = (n) => {
    at = Math.max(0, Math.min(columns.length - 1, n));
    mark();
    showByte();
  };
  const columnAt = (event) => columns.indexOf(event.target instanceof Element ? event.target.closest(".col") : null);
  for (const kind of ["pointerover", "click"]) {
    strip.addEventListener(kind, (event) => { const n = columnAt(event); if (n >= 0) choose(n); });
  }
  strip.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: columns.length - 1 };
    if (!Object.hasOwn(moves, event.key)) return;
    event.preventDefault();
    choose(moves[event.key]);
  });

  // The controls.
  const slider = byId("threshold"), presets = { none: Infinity, stored, every: -Infinity };
  const highest = Math.max(...texts.map((one) => one.entropy.reduce((most, value) => Math.max(most, value), 0)));
  // Hundredths of a nat; a step beyond the entropies on either side means infinity.
  slider.min = -5;
  slider.max = 5 * Math.ceil(highest * 20) + 5;
  slider.step = 5;
  const use = (value, from) => {
    threshold = value;
    const hundredths = Math.max(0, Math.min(Number(slider.max) - 5, Math.round(value * 100)));
    if (from !== slider) slider.value = value === Infinity ? slider.max : value === -Infinity ? slider.min : hundredths;
    const shown = value === Infinity ? "∞" : value === -Infinity ? "−∞" : nats(value);
    byId("shown").textContent = shown;
    slider.setAttribute("aria-valuetext", value === Infinity ? "infinite: no scratchpads"
      : value === -Infinity ? "minus infinity: the trunk at every byte" : shown);
    for (const [id, preset] of Object.entries(presets)) byId(id).setAttribute("aria-pressed", String(preset === value));
    update();
  };
  slider.addEventListener("input", () => {
    const value = Number(slider.value);
    use(value <= Number(slider.min) ? -Infinity : value >= Number(slider.max) ? Infinity : value / 100, slider);
  });
  for (const [id, preset] of Object.entries(presets)) byId(id).addEventListener("click", () => use(preset, null));
  const radios = (name, act) => document.querySelectorAll(`input[name=${name}]`).forEach((radio) => {
    radio.addEventListener("change", () => act(Number(radio.value)));
    if (radio.checked) act(Number(radio.value)); // browsers keep a choice over a reload
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("controls").hidden = false;
  radios("size", (value) => { size = value; update(); });
  radios("text", (value) => {
    if (texts[value] !== text) {
      text = texts[value];
      at = -1;
      byId("readout").textContent = data.invitation;
      build();
    }
    update();
  });
  use(threshold, null);
})();
