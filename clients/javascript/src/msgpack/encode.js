/**
 * Encodes values of JavaScript as msgpack. Never decodes.
 * @module
 */

import { ElbusError, invalidArgument } from '../errors.js';
import { textBytes, writeText } from '../wire/text.js';
import { Extension, MAX_DEPTH, TIMESTAMP } from './extension.js';

/** Memory of a new encoder, in bytes. */
const INITIAL_BYTES = 256;
const MAX_U32 = 0xffffffff;

/**
 * Encodes a value as msgpack.
 *
 * | value | msgpack |
 * |---|---|
 * | `null`, `undefined` | nil |
 * | integers up to 2^53, `bigint` | the shortest integer |
 * | other numbers | float 64 |
 * | strings | str |
 * | `Uint8Array`, other views, `ArrayBuffer` | bin |
 * | arrays, `Set` | array |
 * | `Map` | map |
 * | other objects | map of their own properties that are not `undefined`; of `toJSON()` if they have it |
 * | `Date` | timestamp |
 * | {@link Extension} | ext |
 * @param {unknown} value
 * @returns {Uint8Array}
 * @throws {ElbusError} `conversion`: the value contains a function, a symbol, a promise, itself, or more
 *   than 128 levels.
 */
export function encode(value) {
  const encoder = new Encoder();
  encoder.value(value, 0);
  return encoder.bytes();
}

class Encoder {
  #bytes = new Uint8Array(INITIAL_BYTES);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  /** @returns {Uint8Array} */
  bytes() {
    return this.#bytes.subarray(0, this.#at);
  }

  /**
   * @param {unknown} value
   * @param {number} depth
   */
  value(value, depth) {
    switch (typeof value) {
      case 'undefined':
        return this.#byte(0xc0);
      case 'boolean':
        return this.#byte(value ? 0xc3 : 0xc2);
      case 'number':
        return this.#number(value);
      case 'bigint':
        return this.#bigint(value);
      case 'string':
        return this.#string(value);
      case 'object':
        return value === null ? this.#byte(0xc0) : this.#object(value, depth);
      default:
        throw new ElbusError('conversion', `a ${typeof value} cannot be encoded as msgpack`);
    }
  }

  /**
   * @param {object} value
   * @param {number} depth
   */
  #object(value, depth) {
    if (depth >= MAX_DEPTH) {
      throw new ElbusError('conversion', `the value has more than ${MAX_DEPTH} levels, or contains itself`);
    }
    if (Array.isArray(value)) {
      this.#length(value.length, 0x90, 16, 0, 0xdc, 0xdd);
      for (const item of value) this.value(item, depth + 1);
    } else if (value instanceof Set) {
      this.#length(value.size, 0x90, 16, 0, 0xdc, 0xdd);
      for (const item of value) this.value(item, depth + 1);
    } else if (value instanceof Promise) {
      throw new ElbusError('conversion', 'a promise cannot be encoded as msgpack: await it first');
    } else if (ArrayBuffer.isView(value)) {
      this.#binary(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
    } else if (value instanceof ArrayBuffer) {
      this.#binary(new Uint8Array(value));
    } else if (value instanceof Map) {
      this.#length(value.size, 0x80, 16, 0, 0xde, 0xdf);
      for (const [key, item] of value) {
        this.value(key, depth + 1);
        this.value(item, depth + 1);
      }
    } else if (value instanceof Date) {
      this.#date(value);
    } else if (value instanceof Extension) {
      this.#extension(value);
    } else if ('toJSON' in value && typeof value.toJSON === 'function') {
      this.value(value.toJSON(), depth + 1);
    } else {
      const entries = Object.entries(value).filter(([, item]) => item !== undefined);
      this.#length(entries.length, 0x80, 16, 0, 0xde, 0xdf);
      for (const [key, item] of entries) {
        this.#string(key);
        this.value(item, depth + 1);
      }
    }
  }

  /** @param {number} value */
  #number(value) {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      const at = this.#reserve(9);
      this.#bytes[at] = 0xcb;
      this.#view.setFloat64(at + 1, value);
    } else if (value >= 0) {
      if (value < 0x80) this.#byte(value);
      else if (value <= 0xff) this.#integer(0xcc, 1, value);
      else if (value <= 0xffff) this.#integer(0xcd, 2, value);
      else if (value <= MAX_U32) this.#integer(0xce, 4, value);
      else this.#bigint(BigInt(value));
    } else if (value >= -0x20) this.#byte(value & 0xff);
    else if (value >= -0x80) this.#integer(0xd0, 1, value);
    else if (value >= -0x8000) this.#integer(0xd1, 2, value);
    else if (value >= -0x80000000) this.#integer(0xd2, 4, value);
    else this.#bigint(BigInt(value));
  }

  /** @param {bigint} value */
  #bigint(value) {
    if (value >= BigInt(-0x80000000) && value <= BigInt(MAX_U32)) return this.#number(Number(value));
    if (value !== BigInt.asIntN(64, value) && value !== BigInt.asUintN(64, value)) {
      throw new ElbusError(
        'conversion',
        `the integer ${value} exceeds 64 bits, which msgpack cannot represent`,
      );
    }
    const at = this.#reserve(9);
    this.#bytes[at] = value >= 0n ? 0xcf : 0xd3;
    if (value >= 0n) this.#view.setBigUint64(at + 1, value);
    else this.#view.setBigInt64(at + 1, value);
    return undefined;
  }

  /** @param {string} value */
  #string(value) {
    const length = textBytes(value);
    this.#length(length, 0xa0, 32, 0xd9, 0xda, 0xdb);
    const at = this.#reserve(length);
    writeText(value, this.#bytes, at);
  }

  /** @param {Uint8Array} value */
  #binary(value) {
    this.#length(value.length, 0, 0, 0xc4, 0xc5, 0xc6);
    const at = this.#reserve(value.length);
    this.#bytes.set(value, at);
  }

  /** @param {Date} value */
  #date(value) {
    const millis = value.getTime();
    if (Number.isNaN(millis))
      throw new ElbusError('conversion', 'an invalid Date cannot be encoded as msgpack');
    const seconds = Math.floor(millis / 1000);
    const nanos = (millis - seconds * 1000) * 1e6;
    const short = seconds >= 0 && seconds <= MAX_U32 && nanos === 0;
    const data = new Uint8Array(short ? 4 : 12);
    const view = new DataView(data.buffer);
    if (short) {
      view.setUint32(0, seconds);
    } else {
      view.setUint32(0, nanos);
      view.setBigInt64(4, BigInt(seconds));
    }
    this.#extension(new Extension(TIMESTAMP, data));
  }

  /** @param {Extension} value */
  #extension({ type, data }) {
    if (!Number.isInteger(type) || type < -128 || type > 127) {
      throw invalidArgument('the type of an Extension', type, 'an integer from -128 to 127');
    }
    if (!(data instanceof Uint8Array))
      throw invalidArgument('the data of an Extension', data, 'a Uint8Array');
    const fixed = [1, 2, 4, 8, 16].indexOf(data.length);
    if (fixed >= 0) this.#byte(0xd4 + fixed);
    else this.#length(data.length, 0, 0, 0xc7, 0xc8, 0xc9);
    this.#byte(type & 0xff);
    const at = this.#reserve(data.length);
    this.#bytes.set(data, at);
  }

  /**
   * Writes a type with a length: within the first byte if it is less than `fixed`, else in the shortest form
   * that the type has. A form that it does not have is 0.
   * @param {number} length
   * @param {number} fixedType
   * @param {number} fixed
   * @param {number} type8
   * @param {number} type16
   * @param {number} type32
   */
  #length(length, fixedType, fixed, type8, type16, type32) {
    if (length < fixed) this.#byte(fixedType | length);
    else if (length <= 0xff && type8 !== 0) this.#integer(type8, 1, length);
    else if (length <= 0xffff) this.#integer(type16, 2, length);
    else if (length <= MAX_U32) this.#integer(type32, 4, length);
    else throw new ElbusError('conversion', `a length of ${length} exceeds ${MAX_U32} (32 bits of msgpack)`);
  }

  /**
   * @param {number} type
   * @param {1 | 2 | 4} bytes
   * @param {number} value
   */
  #integer(type, bytes, value) {
    const at = this.#reserve(1 + bytes);
    this.#bytes[at] = type;
    if (bytes === 1) this.#view.setUint8(at + 1, value & 0xff);
    else if (bytes === 2) this.#view.setUint16(at + 1, value & 0xffff);
    else this.#view.setUint32(at + 1, value >>> 0);
  }

  /** @param {number} value */
  #byte(value) {
    const at = this.#reserve(1); // can replace the buffer
    this.#bytes[at] = value;
  }

  /**
   * Makes room. Returns the position.
   * @param {number} count
   * @returns {number}
   */
  #reserve(count) {
    const at = this.#at;
    const needed = at + count;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#at = needed;
    return at;
  }
}
