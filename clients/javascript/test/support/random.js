/**
 * Repeatable random numbers.
 * @module
 */

/**
 * Returns a function for integers from 0 to `limit` - 1.
 * @param {number} seed
 * @returns {(limit: number) => number}
 */
export function randomSource(seed) {
  let state = seed >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 0x100000000) * limit);
  };
}
