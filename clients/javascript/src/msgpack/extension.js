/**
 * Extension types of msgpack.
 * @module
 */

/**
 * A value of an extension type of msgpack: encoded as it is, and what other extension types are decoded to.
 */
export class Extension {
  /**
   * `type` is from -128 to 127; -1 is a timestamp, which a `Date` stands for.
   * @param {number} type
   * @param {Uint8Array} data
   */
  constructor(type, data) {
    /** The type. */
    this.type = type;
    /** The bytes. */
    this.data = data;
  }
}

/** Limit of values within values, in both directions. */
export const MAX_DEPTH = 128;
/** The type of timestamps. */
export const TIMESTAMP = -1;
