/**
 * Decodes msgpack. The input comes from other clients: its claims are checked against what is there. Never
 * encodes.
 * @module
 */

import { ElbusError } from '../errors.js';
import { decodeText } from '../wire/text.js';
import { Extension, MAX_DEPTH, TIMESTAMP } from './extension.js';

/**
 * Decodes one value of msgpack.
 *
 * Integers beyond 2^53 become `bigint`. A map whose keys are all text becomes an object, any other a `Map`.
 * Binary data becomes a `Uint8Array` that shares the memory of the input. A timestamp becomes a `Date`, and
 * any other extension type an {@link Extension}.
 * @param {Uint8Array} bytes
 * @returns {any}
 * @throws {ElbusError} `conversion`: the bytes are not exactly one value, have more than 128 levels, or a
 *   text is not UTF-8.
 */
export function decode(bytes) {
  const decoder = new Decoder(bytes);
  const value = decoder.value(0);
  const rest = bytes.length - decoder.at;
  if (rest > 0) throw fault(`${rest} bytes follow the value`, decoder.at);
  return value;
}

/**
 * @param {string} what
 * @param {number} at
 * @returns {ElbusError}
 */
function fault(what, at) {
  return new ElbusError('conversion', `invalid msgpack at byte ${at}: ${what}`);
}

class Decoder {
  #bytes;
  #view;
  at = 0;

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /**
   * @param {number} depth
   * @returns {any}
   */
  value(depth) {
    const type = this.#view.getUint8(this.#take(1));
    if (type < 0x80) return type;
    if (type < 0x90) return this.#map(type & 0x0f, depth);
    if (type < 0xa0) return this.#array(type & 0x0f, depth);
    if (type < 0xc0) return this.#text(type & 0x1f);
    if (type >= 0xe0) return type - 0x100;
    const view = this.#view;
    switch (type) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#binary(this.#length(type - 0xc4));
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#extension(this.#length(type - 0xc7));
      case 0xca:
        return view.getFloat32(this.#take(4));
      case 0xcb:
        return view.getFloat64(this.#take(8));
      case 0xcc:
        return view.getUint8(this.#take(1));
      case 0xcd:
        return view.getUint16(this.#take(2));
      case 0xce:
        return view.getUint32(this.#take(4));
      case 0xcf:
        return safe(view.getBigUint64(this.#take(8)));
      case 0xd0:
        return view.getInt8(this.#take(1));
      case 0xd1:
        return view.getInt16(this.#take(2));
      case 0xd2:
        return view.getInt32(this.#take(4));
      case 0xd3:
        return safe(view.getBigInt64(this.#take(8)));
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return this.#extension(1 << (type - 0xd4));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#length(type - 0xd9));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#length(type - 0xdb), depth);
      case 0xde:
      case 0xdf:
        return this.#map(this.#length(type - 0xdd), depth);
      default:
        throw fault('0xc1 is not a type', this.at - 1);
    }
  }

  /**
   * Reads a length of 1, 2 or 4 bytes.
   * @param {number} size 0, 1 or 2.
   * @returns {number}
   */
  #length(size) {
    const at = this.#take(1 << size);
    if (size === 0) return this.#view.getUint8(at);
    return size === 1 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  /**
   * Moves on. Returns the position before.
   * @param {number} count
   * @returns {number}
   */
  #take(count) {
    const at = this.at;
    const left = this.#bytes.length - at;
    if (count > left) throw fault(`${count} bytes should follow, and ${left} do`, at);
    this.at = at + count;
    return at;
  }

  /**
   * Checks a claimed number of values, each of which has at least one byte, before memory is allocated for
   * them.
   * @param {number} values
   * @param {number} depth
   */
  #checkContainer(values, depth) {
    const left = this.#bytes.length - this.at;
    if (values > left) throw fault(`${values} values should follow in ${left} bytes`, this.at);
    if (depth >= MAX_DEPTH) throw fault(`more than ${MAX_DEPTH} levels`, this.at);
  }

  /**
   * @param {number} count
   * @param {number} depth
   * @returns {any[]}
   */
  #array(count, depth) {
    this.#checkContainer(count, depth);
    const items = [];
    for (let index = 0; index < count; index += 1) items.push(this.value(depth + 1));
    return items;
  }

  /**
   * @param {number} count
   * @param {number} depth
   * @returns {Record<string, any> | Map<any, any>}
   */
  #map(count, depth) {
    this.#checkContainer(2 * count, depth);
    /** @type {Record<string, any>} */
    const object = {};
    /** @type {Map<any, any> | undefined} */
    let map;
    for (let index = 0; index < count; index += 1) {
      const key = this.value(depth + 1);
      if (typeof key !== 'string' && map === undefined) map = new Map(Object.entries(object));
      const item = this.value(depth + 1);
      if (map !== undefined) map.set(key, item);
      else if (key === '__proto__') define(object, key, item);
      else object[key] = item;
    }
    return map ?? object;
  }

  /**
   * @param {number} length
   * @returns {Uint8Array}
   */
  #binary(length) {
    const at = this.#take(length);
    const { buffer, byteOffset } = this.#bytes;
    return new Uint8Array(buffer, byteOffset + at, length);
  }

  /**
   * @param {number} length
   * @returns {string}
   */
  #text(length) {
    const at = this.#take(length);
    const text = decodeText(this.#bytes.subarray(at, at + length));
    if (text === undefined) throw fault('a text is not UTF-8', at);
    return text;
  }

  /**
   * @param {number} length
   * @returns {Extension | Date}
   */
  #extension(length) {
    const type = this.#view.getInt8(this.#take(1));
    const at = this.at;
    const data = this.#binary(length);
    if (type !== TIMESTAMP) return new Extension(type, data);
    switch (length) {
      case 4:
        return new Date(this.#view.getUint32(at) * 1000);
      case 8: {
        const high = this.#view.getUint32(at);
        const seconds = (high & 3) * 0x100000000 + this.#view.getUint32(at + 4);
        return new Date(seconds * 1000 + Math.floor((high >>> 2) / 1e6));
      }
      case 12: {
        const nanos = this.#view.getUint32(at);
        return new Date(Number(this.#view.getBigInt64(at + 4)) * 1000 + Math.floor(nanos / 1e6));
      }
      default:
        throw fault(`a timestamp of ${length} bytes`, at);
    }
  }
}

/**
 * @param {object} object
 * @param {string} key
 * @param {unknown} value
 */
function define(object, key, value) {
  Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
}

/**
 * Returns a number if it is exact.
 * @param {bigint} value
 * @returns {number | bigint}
 */
function safe(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
