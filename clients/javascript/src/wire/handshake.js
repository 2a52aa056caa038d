/**
 * The bytes of registering (protocol section 2). Never reads or writes.
 * @module
 */

import { textBytes, writeText } from './text.js';

/** The length of the broker's greeting, in bytes. */
export const GREETING_BYTES = 3;
/** The longest name that can be declared, in bytes. */
export const MAX_NAME_BYTES = 0xffff;

const GREETING = [0xeb, 0x01, 0x00];

/**
 * Checks the broker's greeting. Returns what is wrong with it, or `undefined`.
 * @param {Uint8Array} bytes Three bytes.
 * @returns {string | undefined}
 */
export function greetingFault(bytes) {
  if (bytes[0] !== GREETING[0]) {
    const start = [...bytes.subarray(0, GREETING_BYTES)]
      .map((byte) => byte.toString(16).padStart(2, '0'))
      .join(' ');
    return `greeting that begins with ${start} instead of eb 01 00`;
  }
  const version = bytes[1] | (bytes[2] << 8);
  return version === 1
    ? undefined
    : `greeting of protocol version ${version}, and this client speaks version 1`;
}

/**
 * Encodes the client's greeting and its name, which has at most 65,535 bytes.
 * @param {string} name
 * @returns {Uint8Array}
 */
export function encodeRegistration(name) {
  const length = textBytes(name);
  const bytes = new Uint8Array(GREETING_BYTES + 2 + length);
  bytes.set(GREETING);
  bytes[3] = length & 0xff;
  bytes[4] = length >>> 8;
  writeText(name, bytes, GREETING_BYTES + 2);
  return bytes;
}
