/**
 * UTF-8 in both directions. Decoding is strict, and remembers short texts that repeat: names and topics.
 * @module
 */

const encoder = new TextEncoder();
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const lenient = new TextDecoder('utf-8', { ignoreBOM: true });

/** Texts up to this length are encoded without a call into the runtime, in UTF-16 units. */
const SHORT_TEXT = 48;

/**
 * Encodes a text. The caller has checked that it is well-formed.
 * @param {string} text
 * @returns {Uint8Array}
 */
export function encodeText(text) {
  return encoder.encode(text);
}

/**
 * Returns the length of a text in UTF-8, in bytes.
 * @param {string} text
 * @returns {number}
 */
export function textBytes(text) {
  let bytes = text.length;
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit >= 0x80) {
      // a pair of surrogates has four bytes, two for each
      bytes += unit >= 0x800 && (unit < 0xd800 || unit > 0xdfff) ? 2 : 1;
    }
  }
  return bytes;
}

/**
 * Returns whether a text can be encoded: it has no surrogate without its pair.
 * @param {string} text
 * @returns {boolean}
 */
export function isWellFormed(text) {
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index);
    if (unit < 0xd800 || unit > 0xdfff) continue;
    const next = text.charCodeAt(index + 1);
    if (unit > 0xdbff || !(next >= 0xdc00 && next <= 0xdfff)) return false;
    index += 1;
  }
  return true;
}

/**
 * Writes a text. The caller has reserved at least three bytes for each UTF-16 unit.
 * @param {string} text
 * @param {Uint8Array} bytes
 * @param {number} at
 * @returns {number} The position behind the text.
 */
export function writeText(text, bytes, at) {
  const length = text.length;
  if (length <= SHORT_TEXT) {
    let index = 0;
    while (index < length) {
      const unit = text.charCodeAt(index);
      if (unit >= 0x80) break;
      bytes[at + index] = unit;
      index += 1;
    }
    if (index === length) return at + length;
  }
  return at + (encoder.encodeInto(text, bytes.subarray(at)).written ?? 0);
}

/**
 * Decodes a text. Returns `undefined` if it is not UTF-8.
 * @param {Uint8Array} bytes
 * @returns {string | undefined}
 */
export function decodeText(bytes) {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/**
 * Decodes a text; what is not UTF-8 becomes U+FFFD.
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function decodeTextLossy(bytes) {
  return lenient.decode(bytes);
}

const NO_BYTES = new Uint8Array(0);

/** Slots of a {@link TextCache}; a power of two. */
const CACHE_SLOTS = 2048;
/** Longer texts are not remembered, in bytes. */
const CACHED_BYTES = 128;

/**
 * Decodes texts and remembers the latest ones. Its memory is limited to one short text for each slot.
 */
export class TextCache {
  /** @type {(Uint8Array | undefined)[]} */
  #keys = new Array(CACHE_SLOTS);
  /** @type {(string | undefined)[]} */
  #texts = new Array(CACHE_SLOTS);

  /** The bytes of the text that was decoded last; none if it is too long to be remembered. */
  key = /** @type {Uint8Array} */ (NO_BYTES);

  /**
   * Decodes the bytes from `start` to `end`. Returns `undefined` if they are not UTF-8.
   * @param {Uint8Array} bytes
   * @param {number} start
   * @param {number} end
   * @returns {string | undefined}
   */
  decode(bytes, start, end) {
    const length = end - start;
    if (length === 0 || length > CACHED_BYTES) {
      this.key = NO_BYTES;
      return length === 0 ? '' : decodeText(bytes.subarray(start, end));
    }
    let hash = length;
    for (let index = start; index < end; index += 1) {
      hash = (Math.imul(hash, 31) + bytes[index]) | 0;
    }
    const slot = (hash ^ (hash >>> 13)) & (CACHE_SLOTS - 1);
    const key = this.#keys[slot];
    if (key !== undefined && key.length === length) {
      let index = 0;
      while (index < length && key[index] === bytes[start + index]) index += 1;
      if (index === length) {
        this.key = key;
        return this.#texts[slot];
      }
    }
    const text = decodeText(bytes.subarray(start, end));
    if (text !== undefined) {
      this.key = Uint8Array.prototype.slice.call(bytes, start, end);
      this.#keys[slot] = this.key;
      this.#texts[slot] = text;
    }
    return text;
  }
}
