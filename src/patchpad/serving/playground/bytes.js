// Bytes as characters, or as what stands for a byte that is none: the rules of patchpad/pages/marked_text.py.

export const SEPARATOR = 256;
export const NEWLINE = "↵";
const DOTTED_CIRCLE = "◌";
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export const toBytes = (text) => Array.from(encoder.encode(text));

// Text for people and the clipboard; what is not UTF-8 becomes U+FFFD.
export const toText = (bytes) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));

const lengthOf = (lead) => (lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4);

const characterAt = (bytes, start) => {
  const lead = bytes[start];
  if (lead < 0x80) return String.fromCharCode(lead);
  try {
    return decoder.decode(Uint8Array.from(bytes.slice(start, start + lengthOf(lead))));
  } catch {
    return "";
  }
};

const isPrintable = (character) => character === " " || !/[\p{C}\p{Z}]/u.test(character);

// Whether more bytes could still make one character of the bytes from `start` to the end.
const isUnfinished = (bytes, start) => {
  const lead = bytes[start], have = bytes.length - start;
  if (lead < 0xc2 || lead > 0xf4 || have >= lengthOf(lead)) return false;
  for (let i = start + 1; i < bytes.length; i++) if (bytes[i] < 0x80 || bytes[i] > 0xbf) return false;
  return true;
};

export const hex = (byte) => byte.toString(16).toUpperCase().padStart(2, "0");

// Units from `start` on: { start, stop, text, isEscape, breaksLine, isOpen }. `text` of an escape has one entry a byte.
export const unitsOf = (bytes, start = 0) => {
  const units = [];
  for (let at = start; at < bytes.length; ) {
    const isOpen = isUnfinished(bytes, at);
    const character = isOpen ? "" : characterAt(bytes, at);
    const stop = character === "" ? at + 1 : at + lengthOf(bytes[at]);
    if (character === "\n") {
      units.push({ start: at, stop, text: [NEWLINE], isEscape: true, breaksLine: true, isOpen });
    } else if (character !== "" && isPrintable(character)) {
      const text = /^\p{M}/u.test(character) ? DOTTED_CIRCLE + character : character;
      units.push({ start: at, stop, text, isEscape: false, breaksLine: false, isOpen });
    } else {
      const text = bytes.slice(at, stop).map(hex);
      units.push({ start: at, stop, text, isEscape: true, breaksLine: false, isOpen });
    }
    at = stop;
  }
  return units;
};

// A short name of one byte in a list: the character, or what it is.
const NAMES = { 9: "tab", 10: "↵", 13: "\\r", 32: "space", [SEPARATOR]: "end" };
export const nameOfByte = (byte) =>
  NAMES[byte] ?? (byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : hex(byte));
export const spokenByte = (byte) =>
  byte === SEPARATOR ? "the end of the document" : byte === 10 ? "newline" : NAMES[byte] ? NAMES[byte]
    : byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `hexadecimal ${hex(byte)}`;
