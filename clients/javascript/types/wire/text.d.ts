/**
 * UTF-8 in both directions. Decoding is strict, and remembers short texts that repeat: names and topics.
 * @module
 */
/**
 * Encodes a text. The caller has checked that it is well-formed.
 * @param {string} text
 * @returns {Uint8Array}
 */
export declare function encodeText(text: string): Uint8Array;
/**
 * Returns the length of a text in UTF-8, in bytes.
 * @param {string} text
 * @returns {number}
 */
export declare function textBytes(text: string): number;
/**
 * Returns whether a text can be encoded: it has no surrogate without its pair.
 * @param {string} text
 * @returns {boolean}
 */
export declare function isWellFormed(text: string): boolean;
/**
 * Writes a text. The caller has reserved at least three bytes for each UTF-16 unit.
 * @param {string} text
 * @param {Uint8Array} bytes
 * @param {number} at
 * @returns {number} The position behind the text.
 */
export declare function writeText(text: string, bytes: Uint8Array, at: number): number;
/**
 * Decodes a text. Returns `undefined` if it is not UTF-8.
 * @param {Uint8Array} bytes
 * @returns {string | undefined}
 */
export declare function decodeText(bytes: Uint8Array): string | undefined;
/**
 * Decodes a text; what is not UTF-8 becomes U+FFFD.
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export declare function decodeTextLossy(bytes: Uint8Array): string;
/**
 * Decodes texts and remembers the latest ones. Its memory is limited to one short text for each slot.
 */
export declare class TextCache {
    #private;
    /** The bytes of the text that was decoded last; none if it is too long to be remembered. */
    key: Uint8Array;
    /**
     * Decodes the bytes from `start` to `end`. Returns `undefined` if they are not UTF-8.
     * @param {Uint8Array} bytes
     * @param {number} start
     * @param {number} end
     * @returns {string | undefined}
     */
    decode(bytes: Uint8Array, start: number, end: number): string | undefined;
}
