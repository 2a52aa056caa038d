/**
 * The caller's side of cursors: long results that are fetched in parts (protocol section 7). Never serves.
 * @module
 */

import { signalOfNext } from '../arguments.js';
import { ElbusError, invalidArgument, quoted } from '../errors.js';

/**
 * Calls the method that returns the next items; the result is `undefined` if it has no bytes.
 * @typedef {(params: unknown, signal: AbortSignal | undefined) => Promise<any>} CallNext
 */

/**
 * A long result that is fetched in parts; from `client.cursor`.
 *
 * ```js
 * const squares = await client.cursor('math', 'squares', 1000, 'squares.next');
 * for await (const square of squares) console.log(square);
 * ```
 * @implements {AsyncIterableIterator<any>}
 */
export class Cursor {
  #callNext;
  #token;
  #ended = false;

  /**
   * Cursors are created by `client.cursor`.
   * @internal
   * @param {CallNext} callNext
   * @param {unknown} token
   */
  constructor(callNext, token) {
    this.#callNext = callNext;
    this.#token = token;
  }

  /**
   * Checks the result of a method that opens a cursor. Returns the id of the cursor.
   * @internal
   * @param {any} opened
   * @param {string} method
   * @returns {Uint8Array | string}
   */
  static tokenOf(opened, method) {
    const token = typeof opened === 'object' && opened !== null ? opened.u : undefined;
    if (token instanceof Uint8Array || typeof token === 'string') return token;
    throw new ElbusError(
      'conversion',
      `the result of ${quoted(method)} is not a cursor: expected { u: uuid }`,
    );
  }

  /**
   * Returns the next item; done at the end.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<IteratorResult<any, undefined>>}
   * @throws {ElbusError} As `client.call`; an RPC error with code -32001 if the server has dropped the
   *   cursor.
   */
  async next(options) {
    const signal = signalOfNext(options);
    if (this.#ended) return { value: undefined, done: true };
    const item = await this.#callNext({ u: this.#token }, signal);
    if (item !== undefined) return { value: item, done: false };
    this.#ended = true;
    return { value: undefined, done: true };
  }

  /**
   * Returns the next `count` items; fewer at the end, and none after it.
   * @param {number} count
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<any[]>}
   * @throws {ElbusError} As {@link next}.
   */
  async block(count, options) {
    if (!Number.isInteger(count) || count < 0 || count > 0xffffffff) {
      throw invalidArgument('the count of a block', count, 'an integer that is not negative');
    }
    const signal = signalOfNext(options);
    if (this.#ended || count === 0) return [];
    const items = await this.#callNext({ u: this.#token, n: count }, signal);
    if (!Array.isArray(items))
      throw new ElbusError('conversion', 'the server returned a block that is not an array');
    this.#ended = items.length < count;
    return items;
  }

  /**
   * Leaves the cursor, which the server drops when it is not used.
   * @returns {Promise<IteratorResult<any, undefined>>}
   */
  return() {
    this.#ended = true;
    return Promise.resolve({ value: undefined, done: true });
  }

  /** @returns {this} */
  [Symbol.asyncIterator]() {
    return this;
  }
}
