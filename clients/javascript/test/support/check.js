/**
 * Assertions that also work in a browser.
 * @module
 */

/**
 * @param {unknown} value
 * @param {string} [message]
 * @returns {asserts value}
 */
export function ok(value, message = 'expected a true value') {
  if (!value) throw new Error(message);
}

/**
 * Compares values by what they contain.
 * @param {unknown} actual
 * @param {unknown} expected
 * @param {string} [message]
 */
export function equal(actual, expected, message = '') {
  if (!same(actual, expected))
    throw new Error(`${message} expected ${shown(expected)}, got ${shown(actual)}`.trim());
}

/**
 * Expects a rejection with an error of a kind. Returns the error.
 * @param {Promise<unknown> | (() => unknown)} operation
 * @param {string} kind
 * @returns {Promise<any>}
 */
export async function rejects(operation, kind) {
  try {
    await (typeof operation === 'function' ? operation() : operation);
  } catch (error) {
    const actual = /** @type {any} */ (error)?.kind ?? /** @type {any} */ (error)?.name;
    if (actual !== kind) throw new Error(`expected an error of kind ${kind}, got ${error}`);
    return error;
  }
  throw new Error(`expected an error of kind ${kind}, got none`);
}

/**
 * @param {any} a
 * @param {any} b
 * @returns {boolean}
 */
function same(a, b) {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (a instanceof Date && b instanceof Date) return a.getTime() === b.getTime();
  if (a instanceof Map && b instanceof Map) return same([...a], [...b]);
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  return keys.every((key) => same(a[key], b[key]));
}

/** @param {unknown} value */
function shown(value) {
  const text =
    JSON.stringify(value, (_, item) => (typeof item === 'bigint' ? `${item}n` : item)) ?? String(value);
  return text.length > 300 ? `${text.slice(0, 300)}..` : text;
}
