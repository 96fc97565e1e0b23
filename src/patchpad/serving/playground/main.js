// The playground: settings to requests, and what comes back to the page.

import { toBytes } from "./bytes.js";
import { Dial } from "./dial.js";
import { Lane } from "./lane.js";
import { Probe } from "./probe.js";
import { Server } from "./server.js";

const byId = (id) => document.getElementById(id);
const whole = (n) => n.toLocaleString("en-US");
const server = new Server();
let model = null, running = null, announcing = 0;

const announce = (text) => {
  clearTimeout(announcing);
  announcing = setTimeout(() => { byId("announce").textContent = text; }, 400);
};
const probe = new Probe(server, announce);
const dials = ["a", "b"].map((id) => new Dial(byId("dial-template"), id));
const lanes = ["a", "b"].map((id) => new Lane(byId("lane-template"), id, (lane, index) => probe.show(lane, index)));
byId("dials").append(...dials.map((dial) => dial.root));
byId("lanes").append(...lanes.map((lane) => lane.root));

const tell = (text) => { byId("status").textContent = text; };
const fail = (text) => {
  byId("error").textContent = text;
  byId("error").hidden = text === "";
};

// The key is asked for where the server wants one.
const askForKey = () => {
  byId("more").open = true;
  byId("key").focus();
};
const failWith = (error) => {
  fail(error.message);
  if (error.status === 401) askForKey();
  if (error.status === 0) model = null; // who comes back may serve another one
};

const about = ({ id, patchpad: card }) => {
  const size = card.patchifier === "spacebyte" ? "at word ends" : `of ${card.target_patch_size} bytes`;
  const parameters = card.num_parameters >= 1e6 ? `${(card.num_parameters / 1e6).toFixed(1)} million` : whole(card.num_parameters);
  const parts = [`Model ${id}`, `${parameters} parameters`];
  if (card.has_scratchpads) parts.push(`${card.patchifier} patches ${size}`, `${card.trigger} trigger`);
  else parts.push(`a “${card.kind}” model, without scratchpads`);
  return [...parts, `a context of ${whole(card.context_bytes)} bytes`].join(" · ");
};

const loadModel = async () => {
  model = await server.model();
  const card = model.patchpad;
  byId("about").textContent = about(model);
  const most = byId("most-bytes");
  most.max = card.limits?.max_tokens ?? "";
  if (most.max && Number(most.value) > Number(most.max)) most.value = most.max;
  const wasKnown = dials[0].mode !== "unknown";
  for (const dial of dials) dial.configure(card);
  if (!wasKnown) dials[1].choose("none");
  const canCompare = card.has_scratchpads;
  byId("compare").disabled = !canCompare;
  if (!canCompare) byId("compare").checked = false;
  showComparison();
  fail("");
};

const showPromptSize = () => {
  const size = toBytes(byId("prompt").value).length, limit = model?.patchpad.limits?.prompt_bytes;
  const isTooLong = limit !== undefined && size > limit;
  byId("prompt-size").textContent = `${whole(size)} ${size === 1 ? "byte" : "bytes"}`
    + (isTooLong ? `, and the server reads at most ${whole(limit)}` : "");
};

const isComparing = () => byId("compare").checked;
const showComparison = () => {
  const on = isComparing();
  dials.forEach((dial, i) => { dial.rename(on ? `Setting ${"AB"[i]}` : "Compute"); });
  lanes.forEach((lane, i) => { lane.rename(on ? `Setting ${"AB"[i]}` : ""); });
  dials[1].root.hidden = lanes[1].root.hidden = !on;
  byId("lanes").classList.toggle("two", on);
  document.querySelector(".when-comparing").hidden = !on;
  showDifference();
};

// Where the texts first differ, as far as both have come.
const showDifference = () => {
  const [one, other] = lanes, place = byId("difference");
  const both = isComparing() && one.run && other.run && one.comparison !== undefined && one.comparison === other.comparison;
  const length = both ? Math.min(one.bytes.length, other.bytes.length) : 0;
  let at = -1;
  for (let i = both ? one.numPrompt : 0; i < length && at < 0; i++) if (one.bytes[i] !== other.bytes[i]) at = i;
  for (const lane of lanes) if (lane.view.flagged !== at) lane.view.flag(at);
  place.hidden = !both || running !== null;
  if (place.hidden) return;
  const isSame = at < 0 && one.bytes.length === other.bytes.length;
  place.textContent = at >= 0 ? `The texts first differ at byte ${whole(at)}, marked ≠: ${whole(at - one.numPrompt)} new bytes are the same.`
    : isSame ? "Both texts are the same, byte for byte."
    : `As far as both go, the texts are the same: ${whole(length - one.numPrompt)} new bytes.`;
};

const numberOf = (id, name) => {
  const field = byId(id), value = field.valueAsNumber;
  const isWhole = field.step === "1";
  const low = Number(field.min), high = field.max === "" ? Infinity : Number(field.max);
  if (Number.isNaN(value) || value < low || value > high || (isWhole && !Number.isSafeInteger(value))) {
    byId("more").open = true;
    field.setAttribute("aria-invalid", "true");
    field.focus();
    const range = high === Infinity ? `of at least ${low}` : `from ${low} to ${whole(high)}`;
    throw new RangeError(`${name} is “${field.value}”; allowed: a ${isWhole ? "whole number" : "number"} ${range}.`);
  }
  field.removeAttribute("aria-invalid");
  return value;
};

const requestOf = () => {
  const stop = byId("stop-text").value;
  return {
    max_tokens: numberOf("most-bytes", "Most new bytes"),
    temperature: numberOf("temperature", "The temperature"),
    top_p: numberOf("top-p", "Top p"),
    seed: numberOf("seed", "The seed"),
    ...(stop === "" ? {} : { stop }),
  };
};

// A button that is disabled would lose the focus, so these only say that they do nothing now.
const showRunning = (isOn) => {
  const off = { generate: isOn, again: isOn || !lanes[0].run, stop: !isOn };
  for (const [id, isOff] of Object.entries(off)) byId(id).setAttribute("aria-disabled", String(isOff));
};

// Writes one lane's text; returns the error that ended it, null if none did.
const write = async (lane, request, signal) => {
  const prompt = lane.bytes.slice();
  const body = { ...request, ...lane.body, prompt: prompt.length ? prompt : "" };
  const marks = lane.marksAreOff ? null : server.marks({ ...lane.body, prompt: body.prompt }, signal);
  marks?.then((found) => lane.addMarks(found)).catch(() => {}); // the text is what matters; its own error is shown
  let usage = null;
  try {
    for await (const chunk of server.complete(body, signal)) {
      for (const choice of chunk.choices) lane.addChunk(choice);
      if (chunk.usage) usage = chunk.usage;
      if (running?.lanes.length === 2) showDifference();
    }
    lane.end(usage, "");
    return null;
  } catch (error) {
    const isStopped = error.name === "AbortError";
    lane.end(usage, isStopped ? "stopped" : lane.numNew ? "broken off" : "none came");
    return isStopped ? null : error;
  }
};

const summary = (chosen, isStopped) => {
  const texts = chosen.map((lane) => {
    const { calls, read } = lane.counts();
    const name = lane.name ? `${lane.name}: ` : "";
    return `${name}${whole(lane.numNew)} new bytes${read ? `, ${(calls / read).toFixed(3)} trunk calls per byte` : ""}`;
  });
  return `${isStopped ? "Stopped" : "Done"}. ${texts.join("; ")}.`;
};

const generate = async () => {
  if (running) return;
  fail("");
  showRunning(true);
  const control = new AbortController();
  running = { control, lanes: [] };
  try {
    if (model === null) await loadModel();
    const request = requestOf();
    const prompt = toBytes(byId("prompt").value);
    const chosen = running.lanes = isComparing() ? lanes : [lanes[0]];
    const card = model.patchpad;
    probe.close();
    probe.forget();
    const comparison = Symbol("run");
    chosen.forEach((lane, i) => {
      lane.comparison = comparison;
      lane.begin({
        prompt, body: dials[i].body, label: dials[i].label, bytesPerEntry: card.trunk_cache_bytes_per_patch,
        marksAreOff: !card.has_scratchpads,
      });
    });
    showDifference();
    tell("Writing …");
    const errors = (await Promise.all(chosen.map((lane) => write(lane, request, control.signal)))).filter(Boolean);
    tell(errors.length ? "" : summary(chosen, control.signal.aborted));
    if (errors.length) failWith(errors[0]);
  } catch (error) {
    tell("");
    failWith(error);
  } finally {
    running = null;
    showRunning(false);
    showDifference();
  }
};

const stop = () => running?.control.abort();

byId("form").addEventListener("submit", (event) => { event.preventDefault(); generate(); });
byId("stop").addEventListener("click", stop);
byId("again").addEventListener("click", () => {
  if (running || !lanes[0].run) return;
  const seed = byId("seed");
  seed.value = (Number.isSafeInteger(seed.valueAsNumber) ? seed.valueAsNumber : 0) + 1;
  generate();
});
byId("compare").addEventListener("change", showComparison);
byId("prompt").addEventListener("input", showPromptSize);
byId("key").addEventListener("input", () => { server.key = byId("key").value; });
byId("key").addEventListener("change", () => { if (model === null) loadModel().then(showPromptSize, failWith); });
for (const lane of lanes) {
  lane.copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(lane.text);
      announce("Copied.");
      lane.copy.textContent = "Copied";
    } catch {
      lane.copy.textContent = "The browser does not allow it";
    }
    setTimeout(() => { lane.copy.textContent = "Copy the text"; }, 2000);
  });
}
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    generate();
  } else if (event.key === "Escape" && running) {
    stop();
  } else if (event.key === "Escape" && probe.isOpen) {
    probe.close(true);
  }
});

showComparison();
showPromptSize();
showRunning(false);
loadModel().then(showPromptSize, (error) => {
  byId("about").textContent = error.status === 401 ? "This server asks for an API key: write it into its field below."
    : "The server has not told of its model yet.";
  failWith(error);
});
