/**
 * Encodes values of JavaScript as msgpack. Never decodes.
 * @module
 */
/**
 * Encodes a value as msgpack.
 *
 * | value | msgpack |
 * |---|---|
 * | `null`, `undefined` | nil |
 * | integers up to 2^53, `bigint` | the shortest integer |
 * | other numbers | float 64 |
 * | strings | str |
 * | `Uint8Array`, other views, `ArrayBuffer` | bin |
 * | arrays, `Set` | array |
 * | `Map` | map |
 * | other objects | map of their own properties that are not `undefined`; of `toJSON()` if they have it |
 * | `Date` | timestamp |
 * | {@link Extension} | ext |
 * @param {unknown} value
 * @returns {Uint8Array}
 * @throws {ElbusError} `conversion`: the value contains a function, a symbol, a promise, itself, or more
 *   than 128 levels.
 */
export declare function encode(value: unknown): Uint8Array;
