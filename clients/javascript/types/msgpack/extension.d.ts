/**
 * Extension types of msgpack.
 * @module
 */
/**
 * A value of an extension type of msgpack: encoded as it is, and what other extension types are decoded to.
 */
export declare class Extension {
    /** The type. */
    type: number;
    /** The bytes. */
    data: Uint8Array<ArrayBufferLike>;
    /**
     * `type` is from -128 to 127; -1 is a timestamp, which a `Date` stands for.
     * @param {number} type
     * @param {Uint8Array} data
     */
    constructor(type: number, data: Uint8Array);
}
/** Limit of values within values, in both directions. */
export declare const MAX_DEPTH = 128;
/** The type of timestamps. */
export declare const TIMESTAMP = -1;
