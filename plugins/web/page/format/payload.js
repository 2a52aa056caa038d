// Decides what a payload is, and shows it as JSON, msgpack, text or hex. Payloads are untrusted and can be
// cut.

import { decode } from '../elbus.js';
import { visible, visibleLines } from './text.js';
import { hexOf, printValue } from './value.js';

/** @typedef {'auto' | 'json' | 'msgpack' | 'text' | 'hex'} PayloadFormat */
/** @typedef {{ format: string, text: string, value?: unknown }} Shown */

/** The formats that can be chosen, with their names. @type {[PayloadFormat, string][]} */
export const FORMATS = [
  ['auto', 'Automatic'],
  ['json', 'JSON'],
  ['msgpack', 'msgpack'],
  ['text', 'Text'],
  ['hex', 'Hex'],
];

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const lossy = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * Shows a payload on one line.
 * @param {Uint8Array} payload
 * @param {PayloadFormat} format
 * @param {number} [max]
 * @returns {Shown}
 */
export function showLine(payload, format, max = 160) {
  return show(payload, format, { compact: true, max });
}

/**
 * Shows a payload on several lines.
 * @param {Uint8Array} payload
 * @param {PayloadFormat} format
 * @returns {Shown}
 */
export function showBlock(payload, format) {
  return show(payload, format, { compact: false, max: 20_000 });
}

/**
 * @param {Uint8Array} payload
 * @param {PayloadFormat} format
 * @param {{ compact: boolean, max: number }} options
 * @returns {Shown}
 */
function show(payload, format, options) {
  if (payload.length === 0) return { format: 'empty', text: '' };
  const tried = format === 'auto' ? [tryJson, tryText, tryMsgpack] : [];
  if (format === 'json') tried.push(tryJson);
  if (format === 'msgpack') tried.push(tryMsgpack);
  for (const attempt of tried) {
    const shown = attempt(payload, options);
    if (shown !== undefined) return shown;
  }
  if (format === 'hex' || format === 'auto' || format === 'msgpack')
    return {
      format: format === 'msgpack' ? 'not msgpack' : 'hex',
      text: hex(payload, options),
    };
  return {
    format: format === 'json' ? 'not JSON' : 'text',
    text: print(lossy.decode(payload), options),
  };
}

/**
 * @typedef {(payload: Uint8Array, options: { compact: boolean, max: number }) => Shown | undefined} Attempt
 */

/** @type {Attempt} */
function tryJson(payload, options) {
  // the first byte of a value of JSON; decides quickly for most others
  if (!/[\s{["\-0-9tfn]/.test(String.fromCharCode(payload[0]))) return undefined;
  try {
    const value = JSON.parse(strict.decode(payload));
    return { format: 'JSON', text: printValue(value, options), value };
  } catch {
    return undefined;
  }
}

/** @type {Attempt} */
function tryText(payload, options) {
  try {
    const text = strict.decode(payload);
    // eslint-disable-next-line no-control-regex -- binary data that happens to be UTF-8
    if (/[\u0000-\u0008\u000e-\u001f]/.test(text)) return undefined;
    return { format: 'text', text: print(text, options) };
  } catch {
    return undefined;
  }
}

/** @type {Attempt} */
function tryMsgpack(payload, options) {
  try {
    const value = decode(payload);
    return { format: 'msgpack', text: printValue(value, options), value };
  } catch {
    return undefined;
  }
}

/**
 * @param {string} text
 * @param {{ compact: boolean, max: number }} options
 */
function print(text, { compact, max }) {
  return compact ? visible(text, max) : visibleLines(text, max);
}

/**
 * @param {Uint8Array} payload
 * @param {{ compact: boolean, max: number }} options
 */
function hex(payload, { compact, max }) {
  if (compact) return hexOf(payload, Math.floor(max / 3));
  const lines = [];
  for (let at = 0; at < Math.min(payload.length, 4096); at += 16) {
    const part = payload.subarray(at, at + 16);
    const text = Array.from(part, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.'));
    lines.push(`${at.toString(16).padStart(4, '0')}  ${hexOf(part, 16).padEnd(48)} ${text.join('')}`);
  }
  if (payload.length > 4096) lines.push(`… (${payload.length} bytes)`);
  return lines.join('\n');
}

/**
 * Returns the numbers of a payload by the path of their field; a payload that is a number has the path "".
 * @param {Uint8Array} payload
 * @returns {Map<string, number>}
 */
export function numbersIn(payload) {
  /** @type {Map<string, number>} */
  const found = new Map();
  const shown = show(payload, 'auto', { compact: true, max: 0 });
  collect(shown.value, '', 0, found);
  return found;
}

/** Fields of a payload that can be plotted. */
const MAX_FIELDS = 24;

/**
 * @param {unknown} value
 * @param {string} path
 * @param {number} depth
 * @param {Map<string, number>} found
 */
function collect(value, path, depth, found) {
  if (found.size >= MAX_FIELDS || depth > 4) return;
  if (typeof value === 'boolean') found.set(path, value ? 1 : 0);
  else if (typeof value === 'bigint') found.set(path, Number(value));
  else if (typeof value === 'number') {
    if (Number.isFinite(value)) found.set(path, value);
  } else if (value instanceof Map || (Array.isArray(value) && value.length <= MAX_FIELDS)) {
    for (const [key, item] of value.entries()) collect(item, join(path, key), depth + 1, found);
  } else if (
    typeof value === 'object' &&
    value !== null &&
    Object.getPrototypeOf(value) === Object.prototype
  ) {
    for (const [key, item] of Object.entries(value)) collect(item, join(path, key), depth + 1, found);
  }
}

/**
 * @param {string} path
 * @param {unknown} key
 */
function join(path, key) {
  const name = visible(key, 40);
  return path === '' ? name : `${path}.${name}`;
}
