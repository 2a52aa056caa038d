/**
 * The bytes of registering (protocol section 2). Never reads or writes.
 * @module
 */
/** The length of the broker's greeting, in bytes. */
export declare const GREETING_BYTES = 3;
/** The longest name that can be declared, in bytes. */
export declare const MAX_NAME_BYTES = 65535;
/**
 * Checks the broker's greeting. Returns what is wrong with it, or `undefined`.
 * @param {Uint8Array} bytes Three bytes.
 * @returns {string | undefined}
 */
export declare function greetingFault(bytes: Uint8Array): string | undefined;
/**
 * Encodes the client's greeting and its name, which has at most 65,535 bytes.
 * @param {string} name
 * @returns {Uint8Array}
 */
export declare function encodeRegistration(name: string): Uint8Array;
