// Prints decoded values like JSON, with what JSON does not have. Bounded in depth and length, because values
// come from the bus.

import { Extension } from '../elbus.js';
import { visible } from './text.js';

const MAX_DEPTH = 24;

/**
 * Returns a value as text, indented unless `compact`. It ends with `…` if it would exceed `max` characters.
 * @param {unknown} value
 * @param {{ compact?: boolean, max?: number }} [options]
 * @returns {string}
 */
export function printValue(value, { compact = false, max = 20_000 } = {}) {
  const printer = new Printer(compact, max);
  printer.print(value, 0);
  return printer.isFull ? `${printer.text.slice(0, max)}…` : printer.text;
}

class Printer {
  text = '';
  #compact;
  #max;

  /**
   * @param {boolean} compact
   * @param {number} max
   */
  constructor(compact, max) {
    this.#compact = compact;
    this.#max = max;
  }

  get isFull() {
    return this.text.length > this.#max;
  }

  /**
   * @param {unknown} value
   * @param {number} depth
   */
  print(value, depth) {
    if (this.isFull) return;
    if (depth > MAX_DEPTH) this.text += '…';
    else if (Array.isArray(value)) this.#items('[', ']', value.length, value.values(), depth);
    else if (value instanceof Map) this.#items('{', '}', value.size, value.entries(), depth, true);
    else if (value instanceof Uint8Array) this.text += `h'${hexOf(value, 64)}'`;
    else if (value instanceof Date) this.text += isoOf(value);
    else if (value instanceof Extension) this.text += `ext(${value.type}, h'${hexOf(value.data, 64)}')`;
    else if (typeof value === 'object' && value !== null)
      this.#items('{', '}', Object.keys(value).length, Object.entries(value), depth, true);
    else if (typeof value === 'string') this.text += quotedText(value, this.#max);
    else this.text += String(value);
  }

  /**
   * @param {string} open
   * @param {string} close
   * @param {number} length
   * @param {Iterable<any>} items
   * @param {number} depth
   * @param {boolean} [entries]
   */
  #items(open, close, length, items, depth, entries = false) {
    this.text += open;
    let index = 0;
    for (const item of items) {
      if (this.isFull) return;
      if (index > 0) this.text += this.#compact ? ', ' : ',';
      if (!this.#compact) this.text += `\n${'  '.repeat(depth + 1)}`;
      if (entries) {
        const [key, value] = item;
        this.print(key, depth + 1);
        this.text += ': ';
        this.print(value, depth + 1);
      } else this.print(item, depth + 1);
      index += 1;
    }
    if (!this.#compact && length > 0) this.text += `\n${'  '.repeat(depth)}`;
    this.text += close;
  }
}

/** @param {Date} date */
function isoOf(date) {
  return Number.isNaN(date.getTime()) ? 'invalid time' : date.toISOString();
}

/**
 * @param {string} text
 * @param {number} max
 */
function quotedText(text, max) {
  return `"${visible(text.replaceAll('"', '\\"'), max)}"`;
}

/**
 * Returns bytes in hexadecimal, the first `max` of them.
 * @param {Uint8Array} data
 * @param {number} max
 */
export function hexOf(data, max) {
  const shown = Array.from(data.subarray(0, max), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return data.length > max ? `${shown} … (${data.length} bytes)` : shown;
}
