/**
 * Checks the arguments of operations. Never sends.
 * @module
 */

import { ElbusError, invalidArgument, quoted } from './errors.js';
import { encode } from './msgpack/encode.js';
import { QOS_BITS } from './wire/constants.js';
import { isWellFormed } from './wire/text.js';

const EMPTY = new Uint8Array(0);

/** The text that was checked last: most operations repeat their target. */
let checked = '';

/**
 * Checks a text of a frame.
 * @param {string} what
 * @param {unknown} text
 * @returns {string}
 */
export function checkText(what, text) {
  if (text === checked) return text;
  if (typeof text !== 'string') throw invalidArgument(what, text, 'a string');
  if (text.includes('\0')) throw new ElbusError('unsendable', `${what} ${quoted(text)} contains a NUL`);
  if (!isWellFormed(text)) {
    const text2 = `${what} ${quoted(text)} has half of a surrogate pair, which cannot be encoded as UTF-8`;
    throw new ElbusError('unsendable', text2);
  }
  checked = text;
  return text;
}

/**
 * Returns the bits of a quality of service.
 * @param {unknown} qos
 * @returns {number}
 */
export function qosBits(qos) {
  switch (qos) {
    case undefined:
    case 'processed':
      return QOS_BITS.processed;
    case 'no':
      return QOS_BITS.no;
    case 'realtime':
      return QOS_BITS.realtime;
    case 'realtime-processed':
      return QOS_BITS['realtime-processed'];
    default:
      throw invalidArgument('qos', qos, '"no", "processed", "realtime" or "realtime-processed"');
  }
}

/**
 * Checks a payload.
 * @param {unknown} payload
 * @returns {string | Uint8Array}
 */
export function checkPayload(payload) {
  if (typeof payload === 'string') return payload;
  if (payload instanceof Uint8Array) return payload;
  if (payload === undefined) return EMPTY;
  if (ArrayBuffer.isView(payload))
    return new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength);
  if (isArrayBuffer(payload)) return new Uint8Array(payload);
  const remedy = 'a string or bytes; convert values by JSON.stringify or msgpack encode';
  throw invalidArgument('the payload', payload, remedy);
}

/**
 * Returns whether a value is an `ArrayBuffer`, also of another realm.
 * @param {unknown} value
 * @returns {value is ArrayBuffer}
 */
function isArrayBuffer(value) {
  return value instanceof ArrayBuffer || Object.prototype.toString.call(value) === '[object ArrayBuffer]';
}

/**
 * Checks filters, and copies them.
 * @param {unknown} filters
 * @returns {string[]}
 */
export function checkFilters(filters) {
  if (typeof filters === 'string') return [checkText('the filter', filters)];
  if (typeof filters !== 'object' || filters === null || !(Symbol.iterator in filters)) {
    throw invalidArgument('the filters', filters, 'a string or an array of strings');
  }
  return [.../** @type {Iterable<unknown>} */ (filters)].map((filter) => checkText('the filter', filter));
}

/**
 * Encodes the parameters of a call: `undefined` stands for none.
 * @param {unknown} params
 * @param {unknown} raw Whether they are bytes already.
 * @returns {Uint8Array}
 */
export function encodeParams(params, raw) {
  if (params === undefined) return EMPTY;
  if (!raw) return encode(params);
  if (params instanceof Uint8Array) return params;
  if (ArrayBuffer.isView(params)) return new Uint8Array(params.buffer, params.byteOffset, params.byteLength);
  throw invalidArgument('the parameters of a raw call', params, 'a Uint8Array');
}

/** The options of each kind of operation. A misspelt one must not be ignored. */
export const OPTIONS = Object.freeze({
  send: new Set(['qos', 'signal']),
  operation: new Set(['signal']),
  subscribe: new Set(['share', 'key', 'latest', 'every', 'lossy', 'signal']),
  call: new Set(['timeout', 'realtime', 'raw', 'signal']),
  call0: new Set(['qos', 'raw', 'signal']),
  cursor: new Set(['timeout', 'realtime', 'signal']),
  serve: new Set(['notification']),
});

/**
 * Checks the options of an operation.
 * @template {object} T
 * @param {T | undefined} options
 * @param {ReadonlySet<string>} known Their names.
 * @returns {Partial<T>}
 */
export function checkOptions(options, known) {
  if (options === undefined) return {};
  if (typeof options !== 'object' || options === null)
    throw invalidArgument('the options', options, 'an object');
  checkKeys('the options', options, known);
  return options;
}

/**
 * Returns the signal of `next(options)`. An iterator can be called with any value: only objects are options.
 * @param {unknown} options
 * @returns {AbortSignal | undefined}
 */
export function signalOfNext(options) {
  if (typeof options !== 'object' || options === null) return undefined;
  const { signal } = checkOptions(/** @type {{ signal?: AbortSignal }} */ (options), OPTIONS.operation);
  return signal;
}

/**
 * Refuses keys of an object that are not known.
 * @param {string} what
 * @param {object} object
 * @param {ReadonlySet<string>} known
 */
export function checkKeys(what, object, known) {
  for (const key in object) {
    if (!known.has(key)) throw invalidArgument(`a key of ${what}`, key, [...known].join(', '));
  }
}
