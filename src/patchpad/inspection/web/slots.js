// What moves with the threshold: scratchpads, the slot that each byte reads, and what bytes cost.
const pad = Uint8Array.from(flags, (flag) => (flag & SCRATCHPAD ? 1 : 0));
const slot = new Int32Array(count), lag = new Int32Array(count);
const totals = { pads: 0, meanLag: 0, maxLag: 0 };
const hasSlider = byId("slider") !== null;
let threshold = toNumber(meta.threshold);

// Without a threshold in nats, the scratchpads stay where the model put them.
const firesAt = (i, limit) =>
  hasSlider ? (flags[i] & MAY_FIRE) !== 0 && score[i] > limit : (flags[i] & SCRATCHPAD) !== 0;
const uncovered = (i) => (parts.open ? parts.open[i] : 0);

const place = () => {
  const limit = Math.fround(threshold);
  let newest = -1, covered = 0, pads = 0, lagSum = 0, numRead = 0, maxLag = 0;
  for (let i = 0; i < count; i++) {
    if (flags[i] & SEPARATOR) { newest = -1; covered = i; }
    if (flags[i] & UNREAD) { slot[i] = -2; lag[i] = -1; pad[i] = 0; continue; }
    const fires = firesAt(i, limit);
    pad[i] = fires ? 1 : 0;
    if (fires) pads++;
    if (fires || flags[i] & PATCH_END) { newest = i; covered = fires ? i : i - uncovered(i); }
    slot[i] = newest;
    lag[i] = i - covered;
    if (flags[i] & SEPARATOR) continue;
    numRead++;
    lagSum += lag[i];
    if (lag[i] > maxLag) maxLag = lag[i];
  }
  Object.assign(totals, { pads, meanLag: numRead ? lagSum / numRead : 0, maxLag });
};

// The cells that a slot pools, [first, last]; a token's commit stands for the text before the byte where it is known.
const stretchOf = (s) => {
  if (meta.commitsTokens) {
    if (pad[s]) return [s - uncovered(s) + 1, s];
    return flags[s] & SEPARATOR ? [s, s] : [s - uncovered(s - 1), s - uncovered(s)];
  }
  let first = s;
  const start = windowStart(windowOf(s));
  while (first > start && !(flags[first - 1] & PATCH_END)) first--;
  return [first, s];
};
const kindOf = (s) => (pad[s] ? "scratchpad" : "commit");
const patchOf = (i) => {
  let patches = 0;
  for (let j = windowStart(windowOf(i)); j < i; j++) if (flags[j] & PATCH_END) patches++;
  return patches;
};

// Where the slider stands among the measured thresholds: at `low`, or `share` of the way from there to `high`.
const standing = { low: 0, high: 0, share: 0, nearest: 0, isMeasured: true };
const stand = () => {
  const calls = meta.numPatches + totals.pads;
  const exact = points.findIndex((point) => point.threshold === threshold);
  const same = exact >= 0 ? exact : points.findIndex((point) => point.calls === calls);
  if (same >= 0 || points.length < 2) {
    const at = Math.max(0, same);
    Object.assign(standing, { low: at, high: at, share: 0, nearest: at, isMeasured: same >= 0 });
    return;
  }
  let high = points.findIndex((point) => point.calls > calls);
  if (high < 0) high = points.length - 1;
  const low = Math.max(0, high - 1), gap = points[high].calls - points[low].calls;
  const share = gap > 0 ? (calls - points[low].calls) / gap : 0;
  Object.assign(standing, { low, high, share, nearest: share < 0.5 ? low : high, isMeasured: false });
};
const mixed = (low, high) => low + standing.share * (high - low);
const costOf = (byte) => mixed(costs[standing.low][byte], costs[standing.high][byte]) / meta.costSteps;
const gainOf = (byte) => costs[0][byte] / meta.costSteps - costOf(byte);
const bitsPerByte = () => mixed(points[standing.low].bpb, points[standing.high].bpb);
const hasGains = points.length > 1;
