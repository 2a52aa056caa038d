/**
 * Reads the cases of protocol/conformance.
 * @module
 */

import { readFileSync } from 'node:fs';

import { concat, parseBytes, parseFields, words } from './bytes.js';

/**
 * An item is its kind and its fields in order.
 * @typedef {object} Case
 * @property {string} title
 * @property {number} limit
 * @property {Uint8Array} input
 * @property {[string, [string, Uint8Array][]][]} items
 * @property {string} end
 */

/**
 * @param {string} file
 * @returns {Case[]}
 */
export function readCases(file) {
  const text = readFileSync(new URL(`../../../../protocol/conformance/${file}`, import.meta.url), 'utf8');
  /** @type {Case[]} */
  const cases = [];
  for (const line of text.split('\n').map((line) => line.trim())) {
    if (line === '' || line.startsWith('#')) continue;
    const [head, ...rest] = words(line);
    const current = cases[cases.length - 1];
    if (head === 'case') {
      cases.push({ title: line.slice(5), limit: 65536, input: new Uint8Array(0), items: [], end: '' });
    } else if (head === 'limit') current.limit = Number(rest[0]);
    else if (head === 'in') current.input = concat(current.input, parseBytes(rest).bytes);
    else if (head === '>') current.items.push([rest[0], parseFields(rest.slice(1))]);
    else if (head === '=') current.end = rest.join(' ');
    else throw new Error(`unknown line: ${line}`);
  }
  if (cases.length < 10) throw new Error(`only ${cases.length} cases in ${file}`);
  return cases;
}
