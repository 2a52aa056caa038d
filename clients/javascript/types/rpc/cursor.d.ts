/**
 * The caller's side of cursors: long results that are fetched in parts (protocol section 7). Never serves.
 * @module
 */
export type CallNext = (params: unknown, signal: AbortSignal | undefined) => Promise<any>;
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
export declare class Cursor implements AsyncIterableIterator<any> {
    #private;
    /**
     * Returns the next item; done at the end.
     * @param {{ signal?: AbortSignal }} [options]
     * @returns {Promise<IteratorResult<any, undefined>>}
     * @throws {ElbusError} As `client.call`; an RPC error with code -32001 if the server has dropped the
     *   cursor.
     */
    next(options?: {
        signal?: AbortSignal;
    }): Promise<IteratorResult<any, undefined>>;
    /**
     * Returns the next `count` items; fewer at the end, and none after it.
     * @param {number} count
     * @param {{ signal?: AbortSignal }} [options]
     * @returns {Promise<any[]>}
     * @throws {ElbusError} As {@link next}.
     */
    block(count: number, options?: {
        signal?: AbortSignal;
    }): Promise<any[]>;
    /**
     * Leaves the cursor, which the server drops when it is not used.
     * @returns {Promise<IteratorResult<any, undefined>>}
     */
    return(): Promise<IteratorResult<any, undefined>>;
    /** @returns {this} */
    [Symbol.asyncIterator](): this;
}
