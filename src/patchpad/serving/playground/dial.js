// A dial for the compute of one setting: trunk calls per byte, or a threshold in nats where there is no calibration.

const HIGHEST_NATS = 5.55; // ln 257, all outcomes equally likely
const STEPS = 1000;

export const toNumber = (text) => {
  const plain = String(text).trim().replaceAll("−", "-").replaceAll("∞", "inf");
  if (plain === "inf" || plain === "+inf") return Infinity;
  if (plain === "-inf") return -Infinity;
  return plain === "" ? NaN : Number(plain);
};
const brief = (t) => (Number.isFinite(t) ? t.toFixed(3) : t > 0 ? "∞" : "−∞");

// The calibration's rows, read both ways by linear interpolation; as in patchpad/calibration_table.py.
export class Calibration {
  // `most` are the trunk calls per byte with a scratchpad wherever one may fire.
  constructor(rows, most = 1) {
    this.most = most;
    this.rows = rows.map((row) => ({
      compute: row.compute, threshold: toNumber(row.scratchpad_threshold_nats), bits: row.bits_per_byte,
    }));
    this.finite = this.rows.filter((row) => Number.isFinite(row.threshold));
    this.least = this.rows[0].compute;
  }

  static #between(rows, key, at, wanted) {
    const inside = rows.findIndex((row, i) => i > 0 && (at - rows[i - 1][key]) * (at - row[key]) <= 0);
    if (inside < 0) {
      const [first, last] = [rows[0], rows[rows.length - 1]];
      return Math.abs(at - first[key]) < Math.abs(at - last[key]) ? first[wanted] : last[wanted];
    }
    const low = rows[inside - 1], high = rows[inside], gap = high[key] - low[key];
    return low[wanted] + (gap === 0 ? 0 : (at - low[key]) / gap) * (high[wanted] - low[wanted]);
  }

  thresholdAt(compute) {
    if (compute <= this.least) return Infinity;
    if (compute >= this.most) return -Infinity;
    return Calibration.#between(this.finite, "compute", compute, "threshold");
  }

  computeAt(threshold) {
    if (threshold === Infinity) return this.least;
    if (threshold === -Infinity) return this.most;
    return Math.min(this.most, Calibration.#between(this.finite, "threshold", threshold, "compute"));
  }

  bitsAt(compute) { return Calibration.#between(this.rows, "compute", compute, "bits"); }
}

export class Dial {
  constructor(template, id, onChange) {
    const root = this.root = template.content.cloneNode(true).firstElementChild;
    const find = (selector) => root.querySelector(selector);
    [this.name, this.number, this.unit, this.slider] =
      [".dial-name", ".value input", ".unit", "input[type=range]"].map(find);
    [this.low, this.high, this.translation, this.why] = [".low", ".high", ".translation", ".why"].map(find);
    this.presets = Array.from(root.querySelectorAll(".presets button"));
    this.id = id;
    this.slider.id = `compute-${id}`;
    this.number.id = `number-${id}`;
    this.name.htmlFor = this.slider.id;
    this.why.id = `why-${id}`;
    this.slider.setAttribute("aria-describedby", this.why.id);
    this.onChange = onChange;
    this.mode = "unknown";
    this.choice = { kind: "stored" };
    this.slider.max = STEPS;
    this.slider.addEventListener("input", () => this.#choose(this.#atSlider(), this.slider));
    this.number.addEventListener("input", () => this.#typed());
    this.number.addEventListener("change", () => this.#show(null));
    for (const button of this.presets) {
      button.addEventListener("click", () => this.#choose({ kind: button.dataset.preset }, null));
    }
    this.rename("Compute");
    this.#enable();
  }

  rename(name) {
    this.name.textContent = name;
    this.number.setAttribute("aria-label", this.mode === "threshold" ? `${name}: threshold in nats, inf or -inf`
      : `${name}: trunk calls per byte`);
    this.root.querySelector(".presets").setAttribute("aria-label", `${name}: usual choices`);
  }

  // What the model allows; `card` is the key `patchpad` of /v1/models.
  configure(card) {
    this.usual = toNumber(card.default_scratchpad_threshold_nats ?? card.scratchpad_threshold_nats);
    const isStored = this.usual === toNumber(card.scratchpad_threshold_nats);
    this.presets[1].textContent = isStored ? "stored" : "server’s own";
    this.calibration = null;
    if (!card.has_scratchpads) {
      this.#because("off", `A “${card.kind}” model has no scratchpads: its compute per byte is fixed, so there is `
        + "nothing to choose.");
    } else if (!card.takes_threshold_in_nats) {
      this.#because("presets", "This model’s scratchpads do not follow a threshold in nats: its trigger is "
        + `“${card.trigger}”. So the slider is off; they can be as they were trained, at every byte, or nowhere.`);
    } else if (!card.calibration?.length) {
      this.#because("threshold", "This model has no calibration, so the slider sets the threshold in nats and not the "
        + "compute. “patchpad calibrate RUN --data PATH” measures what each threshold spends.");
    } else {
      this.calibration = new Calibration(card.calibration, card.most_compute ?? 1);
      this.#because("compute", "");
    }
    const kinds = { off: [], presets: ["none", "every"] }[this.mode] ?? ["none", "every", this.mode];
    if (!kinds.includes(this.choice.kind)) this.choice = { kind: "stored" };
    this.rename(this.name.textContent);
    this.#enable();
    this.#show(null);
  }

  choose(kind) { this.#choose({ kind }, null); }

  // What a request says of this setting.
  get body() {
    const { kind, value } = this.choice;
    if (kind === "none") return { scratchpad_threshold: "inf" };
    if (kind === "every") return { scratchpad_threshold: "-inf" };
    if (kind === "compute") return { compute: value };
    return kind === "threshold" ? { scratchpad_threshold: value } : {};
  }

  get label() {
    const { kind, value } = this.choice;
    return this.mode === "off" ? "compute is fixed"
      : { none: "no scratchpads", every: "a scratchpad at every byte", stored: `${this.presets[1].textContent} threshold` }[kind]
      ?? (kind === "compute" ? `compute ${value.toFixed(3)}` : `threshold ${brief(value)} nats`);
  }

  #because(mode, why) {
    this.mode = mode;
    this.why.textContent = why;
    this.why.hidden = why === "";
    this.root.classList.toggle("is-off", mode === "off");
  }

  #enable() {
    const slides = this.mode === "compute" || this.mode === "threshold";
    this.slider.disabled = this.number.disabled = !slides;
    for (const button of this.presets) button.disabled = !slides && this.mode !== "presets";
    this.unit.textContent = this.mode === "threshold" ? "nats" : "trunk calls per byte";
    this.low.textContent = this.calibration ? `${this.calibration.least.toFixed(3)}, patches alone` : "patches alone";
    this.high.textContent = this.mode === "threshold" ? "−∞, every byte"
      : `${Number((this.calibration?.most ?? 1).toFixed(3))}, every byte`;
    if (this.mode === "threshold") this.low.textContent = "∞, patches alone";
    this.low.hidden = this.high.hidden = !slides;
  }

  get #threshold() {
    const { kind, value } = this.choice;
    return kind === "none" ? Infinity : kind === "every" ? -Infinity : kind === "threshold" ? value : this.usual;
  }

  get #compute() {
    return this.choice.kind === "compute" ? this.choice.value : this.calibration.computeAt(this.#threshold);
  }

  #atSlider() {
    const at = Number(this.slider.value);
    if (at <= 0) return { kind: "none" };
    if (at >= STEPS) return { kind: "every" };
    if (this.mode === "threshold") return { kind: "threshold", value: Number((HIGHEST_NATS * (1 - at / STEPS)).toFixed(3)) };
    const { least, most } = this.calibration;
    return { kind: "compute", value: Number((least + (most - least) * (at / STEPS)).toFixed(3)) };
  }

  #typed() {
    const value = toNumber(this.number.value);
    let choice = null;
    if (this.mode === "threshold" && !Number.isNaN(value)) {
      choice = value === Infinity ? { kind: "none" } : value === -Infinity ? { kind: "every" } : { kind: "threshold", value };
    } else if (this.mode === "compute" && value <= Number(this.calibration.most.toFixed(3)) && value >= this.calibration.least - 5e-4) {
      choice = value <= this.calibration.least ? { kind: "none" }
        : value >= this.calibration.most ? { kind: "every" } : { kind: "compute", value };
    }
    if (choice === null) this.number.setAttribute("aria-invalid", "true");
    else this.#choose(choice, this.number);
  }

  #choose(choice, from) {
    this.choice = choice;
    this.#show(from);
    this.onChange?.();
  }

  #show(from) {
    this.number.removeAttribute("aria-invalid");
    for (const button of this.presets) {
      button.setAttribute("aria-pressed", String(this.mode !== "off" && button.dataset.preset === this.choice.kind));
    }
    if (this.mode === "compute") {
      const compute = this.#compute, { least, most } = this.calibration;
      if (from !== this.number) this.number.value = compute.toFixed(3);
      if (from !== this.slider) this.slider.value = Math.round(((compute - least) / (most - least)) * STEPS);
      const threshold = this.choice.kind === "compute" ? this.calibration.thresholdAt(compute) : this.#threshold;
      this.translation.textContent = `threshold ${brief(threshold)}${Number.isFinite(threshold) ? " nats" : ""} · `
        + `${this.calibration.bitsAt(compute).toFixed(3)} bits per byte at calibration`;
      this.slider.setAttribute("aria-valuetext", `${compute.toFixed(3)} trunk calls per byte, ${this.label}`);
    } else if (this.mode === "threshold") {
      const threshold = this.#threshold;
      const inside = Math.max(1, Math.min(STEPS - 1, Math.round((1 - threshold / HIGHEST_NATS) * STEPS)));
      if (from !== this.number) this.number.value = Number.isFinite(threshold) ? String(Number(threshold.toFixed(4))) : brief(threshold);
      if (from !== this.slider) this.slider.value = threshold === Infinity ? 0 : threshold === -Infinity ? STEPS : inside;
      this.translation.textContent = "";
      this.slider.setAttribute("aria-valuetext", this.label);
    } else {
      this.number.value = "";
      this.translation.textContent = "";
    }
  }
}
