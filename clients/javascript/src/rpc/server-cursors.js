/**
 * The server's side of cursors (protocol section 7). Owns the open cursors of a server and their expiry;
 * never calls.
 * @module
 */

import { invalidArgument, RpcError } from '../errors.js';
import { encode } from '../msgpack/encode.js';
import { number } from '../settings.js';
import { primaryOf } from '../wire/constants.js';
import { EMPTY } from '../wire/rpc.js';

/** Default time after which an unused cursor is dropped, in milliseconds. */
const LIFETIME = 60_000;
/** Limit of open cursors of one server. */
const MAX_CURSORS = 10_000;
/** Limit of those that one client has opened, with its secondary clients: others must have some left. */
const MAX_CALLER_CURSORS = 1_000;
/** Limit of items in one block. */
const MAX_BLOCK_ITEMS = 100_000;

/** A method whose result is fetched in parts; from {@link cursorMethod}. */
export class CursorMethod {
  /**
   * @param {string} next
   * @param {(params: any, call: import('./methods.js').Call) => any} method
   * @param {number} lifetime
   */
  constructor(next, method, lifetime) {
    this.next = next;
    this.method = method;
    this.lifetime = lifetime;
  }
}

/**
 * Makes a method of {@link import('../client.js').Client.serve} return a long result that is fetched in
 * parts: the method opens a cursor, and the method called `next` returns its items, one or a block at a time.
 * `method` returns anything iterable, for example as a generator. A cursor that is not used for `lifetime`
 * milliseconds (60,000) is dropped.
 *
 * ```js
 * client.serve({
 *   squares: cursorMethod('squares.next', function* (to) {
 *     for (let n = 0; n < to; n += 1) yield n * n;
 *   }),
 * });
 * ```
 * @param {string} next
 * @param {(params: any, call: import('./methods.js').Call) => Iterable<unknown> | AsyncIterable<unknown>
 * | Promise<Iterable<unknown> | AsyncIterable<unknown>>} method
 * @param {{ lifetime?: number }} [options]
 * @returns {CursorMethod}
 */
export function cursorMethod(next, method, options = {}) {
  if (typeof next !== 'string')
    throw invalidArgument('the first argument of cursorMethod', next, 'the name of a method');
  if (typeof method !== 'function')
    throw invalidArgument('the second argument of cursorMethod', method, 'a function');
  return new CursorMethod(next, method, number('lifetime', options.lifetime, LIFETIME));
}

/**
 * @typedef {object} OpenCursor
 * @property {string} owner The client that has opened it; no other client gets its items.
 * @property {AsyncIterator<unknown> | Iterator<unknown>} items
 * @property {number} lifetime
 * @property {number} lastUsed
 * @property {Promise<unknown>} turn Calls get their items one after another.
 */

export class ServerCursors {
  /** @type {Map<string, OpenCursor>} */
  #open = new Map();

  /**
   * Opens a cursor.
   * @param {string} owner
   * @param {CursorMethod} cursor
   * @param {unknown} params
   * @param {import('./methods.js').Call} call
   * @returns {Promise<{ u: Uint8Array }>}
   */
  async open(owner, { method, lifetime }, params, call) {
    const iterable = await method(params, call);
    const iterate = iterable?.[Symbol.asyncIterator] ?? iterable?.[Symbol.iterator];
    if (typeof iterate !== 'function') throw RpcError.internal('the method returned nothing iterable');
    this.#dropExpired();
    if (this.#open.size >= MAX_CURSORS)
      throw RpcError.internal(`limit of ${MAX_CURSORS} open cursors reached`);
    const primary = primaryOf(owner);
    let own = 0;
    for (const cursor of this.#open.values()) if (primaryOf(cursor.owner) === primary) own += 1;
    if (own >= MAX_CALLER_CURSORS)
      throw RpcError.internal(`limit of ${MAX_CALLER_CURSORS} open cursors of one client reached`);
    const token = crypto.getRandomValues(new Uint8Array(16));
    const items = iterate.call(iterable);
    const lastUsed = performance.now();
    this.#open.set(keyOf(token), { owner, items, lifetime, lastUsed, turn: Promise.resolve() });
    return { u: token };
  }

  /**
   * Returns the next item, or a block of items. No bytes are the end.
   * @param {string} caller
   * @param {any} params
   * @returns {Promise<Uint8Array>}
   */
  async next(caller, params) {
    const { u, n } = typeof params === 'object' && params !== null ? params : /** @type {any} */ ({});
    if (!(u instanceof Uint8Array) && typeof u !== 'string')
      throw RpcError.invalidParams('u must be the id of a cursor');
    if (n !== undefined && n !== null && !(Number.isInteger(n) && n >= 0 && n <= MAX_BLOCK_ITEMS)) {
      throw RpcError.invalidParams(`n must be an integer from 0 to ${MAX_BLOCK_ITEMS}`);
    }
    this.#dropExpired();
    const key = keyOf(u);
    const cursor = this.#open.get(key);
    if (cursor === undefined || cursor.owner !== caller) throw RpcError.notFound();
    const isBlock = typeof n === 'number';
    const turn = cursor.turn.then(() => this.#take(key, cursor, isBlock ? n : 1));
    cursor.turn = turn.catch(() => {});
    const items = await turn;
    if (isBlock) return encode(items);
    return items.length === 0 ? EMPTY : encode(items[0]);
  }

  /**
   * @param {string} key
   * @param {OpenCursor} cursor
   * @param {number} count
   * @returns {Promise<unknown[]>}
   */
  async #take(key, cursor, count) {
    cursor.lastUsed = Infinity; // in use
    /** @type {unknown[]} */
    const items = [];
    try {
      while (items.length < count) {
        const { value, done } = await cursor.items.next();
        if (done) {
          this.#open.delete(key);
          break;
        }
        items.push(value);
      }
    } catch (error) {
      this.#open.delete(key);
      throw error;
    } finally {
      cursor.lastUsed = performance.now();
    }
    return items;
  }

  #dropExpired() {
    const now = performance.now();
    for (const [key, cursor] of this.#open) {
      if (now - cursor.lastUsed <= cursor.lifetime) continue;
      this.#open.delete(key);
      // a generator can free what it holds
      void (async () => cursor.items.return?.())().catch(() => {});
    }
  }
}

/**
 * @param {Uint8Array | string} token
 * @returns {string}
 */
function keyOf(token) {
  return typeof token === 'string' ? `text:${token}` : `bytes:${token.join(',')}`;
}
