/**
 * Decodes msgpack. The input comes from other clients: its claims are checked against what is there. Never
 * encodes.
 * @module
 */
/**
 * Decodes one value of msgpack.
 *
 * Integers beyond 2^53 become `bigint`. A map whose keys are all text becomes an object, any other a `Map`.
 * Binary data becomes a `Uint8Array` that shares the memory of the input. A timestamp becomes a `Date`, and
 * any other extension type an {@link Extension}.
 * @param {Uint8Array} bytes
 * @returns {any}
 * @throws {ElbusError} `conversion`: the bytes are not exactly one value, have more than 128 levels, or a
 *   text is not UTF-8.
 */
export declare function decode(bytes: Uint8Array): any;
