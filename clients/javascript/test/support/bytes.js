/**
 * The notation of bytes in the conformance cases.
 * @module
 */

const encoder = new TextEncoder();

/**
 * Splits a line into words; texts in quotes can contain blanks.
 * @param {string} line
 * @returns {string[]}
 */
export function words(line) {
  return line.match(/"[^"]*"|[^\s,"]+|,/g) ?? [];
}

/**
 * Bytes with places whose bytes another side chooses.
 * @typedef {{ bytes: Uint8Array, ids: { at: number, name: string }[] }} Pattern
 */

/**
 * Parses `BYTES` from words.
 * @param {string[]} input
 * @returns {Pattern}
 */
export function parseBytes(input) {
  const rest = [...input];
  const pattern = sequence(rest);
  if (rest.length > 0) throw new Error(`unexpected ${rest.join(' ')}`);
  return pattern;
}

/**
 * Parses words until the closing bracket.
 * @param {string[]} rest
 * @returns {Pattern}
 */
function sequence(rest) {
  /** @type {Uint8Array[]} */
  const parts = [];
  /** @type {Pattern['ids']} */
  const ids = [];
  let length = 0;
  const add = (/** @type {Uint8Array} */ bytes) => {
    parts.push(bytes);
    length += bytes.length;
  };
  while (rest.length > 0 && rest[0] !== ')') {
    const word = /** @type {string} */ (rest.shift());
    const [, id] = /^id:(.+)$/.exec(word) ?? [];
    const [, bits, value] = /^([ui]\d+)=(-?\d+)$/.exec(word) ?? [];
    const [, lengthBits] = /^len(16|32)\($/.exec(word) ?? [];
    const [, count] = /^(\d+)\*\($/.exec(word) ?? [];
    if (word.startsWith('"')) {
      add(encoder.encode(word.slice(1, -1)));
    } else if (id !== undefined) {
      ids.push({ at: length, name: id });
      add(new Uint8Array(4));
    } else if (bits !== undefined) {
      add(littleEndian(Number(value), Number(bits.slice(1)) / 8));
    } else if (lengthBits !== undefined || count !== undefined) {
      const inner = sequence(rest);
      if (rest.shift() !== ')') throw new Error(`no bracket closes ${word}`);
      if (lengthBits !== undefined) {
        add(littleEndian(inner.bytes.length, Number(lengthBits) / 8));
        for (const { at, name } of inner.ids) ids.push({ at: at + length, name });
        add(inner.bytes);
      } else {
        const repeated = new Uint8Array(inner.bytes.length * Number(count));
        for (let at = 0; at < repeated.length; at += inner.bytes.length) repeated.set(inner.bytes, at);
        add(repeated);
      }
    } else if (/^([0-9A-F]{2})+$/.test(word)) {
      add(
        Uint8Array.from(/** @type {string[]} */ (word.match(/../g)), (digits) => Number.parseInt(digits, 16)),
      );
    } else {
      throw new Error(`not bytes: ${word}`);
    }
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return { bytes, ids };
}

/**
 * @param {number} value
 * @param {number} count
 * @returns {Uint8Array}
 */
function littleEndian(value, count) {
  return Uint8Array.from({ length: count }, (_, index) => (value >> (8 * index)) & 0xff);
}

/**
 * Parses `KEY BYTES, KEY BYTES ...` into a list of keys and bytes.
 * @param {string[]} input
 * @returns {[string, Uint8Array][]}
 */
export function parseFields(input) {
  /** @type {[string, Uint8Array][]} */
  const fields = [];
  /** @type {string[]} */
  let current = [];
  for (const word of [...input, ',']) {
    if (word !== ',') {
      current.push(word);
    } else if (current.length > 0) {
      const [key, ...value] = current;
      fields.push([key, parseBytes(value).bytes]);
      current = [];
    }
  }
  return fields;
}

/**
 * Returns bytes as digits, shortened.
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function hex(bytes) {
  const digits = Array.from(bytes.subarray(0, 200), (byte) => byte.toString(16).padStart(2, '0')).join('');
  return bytes.length > 200 ? `${digits}.. (${bytes.length} bytes)` : digits;
}

/**
 * @param {...Uint8Array} parts
 * @returns {Uint8Array}
 */
export function concat(...parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
