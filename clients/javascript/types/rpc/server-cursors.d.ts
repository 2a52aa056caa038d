/**
 * The server's side of cursors (protocol section 7). Owns the open cursors of a server and their expiry;
 * never calls.
 * @module
 */
/** A method whose result is fetched in parts; from {@link cursorMethod}. */
export declare class CursorMethod {
    next: string;
    method: (params: any, call: import('./methods.js').Call) => any;
    lifetime: number;
    /**
     * @param {string} next
     * @param {(params: any, call: import('./methods.js').Call) => any} method
     * @param {number} lifetime
     */
    constructor(next: string, method: (params: any, call: import('./methods.js').Call) => any, lifetime: number);
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
export declare function cursorMethod(next: string, method: (params: any, call: import('./methods.js').Call) => Iterable<unknown> | AsyncIterable<unknown> | Promise<Iterable<unknown> | AsyncIterable<unknown>>, options?: {
    lifetime?: number;
}): CursorMethod;
export type OpenCursor = {
    /**
     * The client that has opened it; no other client gets its items.
     */
    owner: string;
    items: AsyncIterator<unknown> | Iterator<unknown>;
    lifetime: number;
    lastUsed: number;
    /**
     * Calls get their items one after another.
     */
    turn: Promise<unknown>;
};
/**
 * @typedef {object} OpenCursor
 * @property {string} owner The client that has opened it; no other client gets its items.
 * @property {AsyncIterator<unknown> | Iterator<unknown>} items
 * @property {number} lifetime
 * @property {number} lastUsed
 * @property {Promise<unknown>} turn Calls get their items one after another.
 */
export declare class ServerCursors {
    #private;
    /**
     * Opens a cursor.
     * @param {string} owner
     * @param {CursorMethod} cursor
     * @param {unknown} params
     * @param {import('./methods.js').Call} call
     * @returns {Promise<{ u: Uint8Array }>}
     */
    open(owner: string, { method, lifetime }: CursorMethod, params: unknown, call: import('./methods.js').Call): Promise<{
        u: Uint8Array;
    }>;
    /**
     * Returns the next item, or a block of items. No bytes are the end.
     * @param {string} caller
     * @param {any} params
     * @returns {Promise<Uint8Array>}
     */
    next(caller: string, params: any): Promise<Uint8Array>;
}
