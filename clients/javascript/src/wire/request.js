/**
 * Encodes what a client sends after the handshake (protocol section 3). Never decides when it is sent.
 * @module
 */

import { QOS_PROCESSED } from './constants.js';
import { encodeText, textBytes, writeText } from './text.js';

const HEADER_BYTES = 9;
/** The longest body, in bytes. */
export const MAX_BODY_BYTES = 0xffffffff;
/** Shorter arrays are copied byte by byte, which is faster than a call. */
const SHORT_BYTES = 24;

/** A ping: nine bytes without body or acknowledgement. */
export const PING = new Uint8Array(HEADER_BYTES);

/**
 * Returns how many bytes {@link encodeRequest} can need.
 * @param {string} target
 * @param {string} receiver
 * @param {Uint8Array} head
 * @param {string | Uint8Array} payload
 * @returns {number}
 */
export function requestBound(target, receiver, head, payload) {
  const payloadBound = typeof payload === 'string' ? 3 * payload.length : payload.length;
  return HEADER_BYTES + 3 * (target.length + receiver.length) + 2 + head.length + payloadBound;
}

/**
 * Encodes a frame with target and payload; with a receiver if the operation is PUBLISH_FOR. The caller has
 * checked the texts and reserved {@link requestBound} bytes. Returns the position behind the frame.
 * @param {Uint8Array} bytes
 * @param {number} from
 * @param {number} opId
 * @param {number} flags
 * @param {string} target
 * @param {string | undefined} receiver
 * @param {Uint8Array} head
 * @param {string | Uint8Array} payload
 * @returns {number}
 */
export function encodeRequest(bytes, from, opId, flags, target, receiver, head, payload) {
  let at = writeText(target, bytes, from + HEADER_BYTES);
  bytes[at] = 0;
  at += 1;
  if (isPublishFor(flags)) {
    at = writeText(receiver ?? '', bytes, at);
    bytes[at] = 0;
    at += 1;
  }
  at = copy(head, bytes, at);
  at = typeof payload === 'string' ? writeText(payload, bytes, at) : copy(payload, bytes, at);
  writeHeader(bytes, from, opId, flags, at - from - HEADER_BYTES);
  return at;
}

/**
 * Encodes a topic operation, which requests an acknowledgement.
 * @param {number} opId
 * @param {number} op
 * @param {readonly string[]} filters At least one.
 * @returns {Uint8Array}
 */
export function encodeFilters(opId, op, filters) {
  const body = encodeText(filters.join('\0'));
  const bytes = new Uint8Array(HEADER_BYTES + body.length);
  writeHeader(bytes, 0, opId, op | QOS_PROCESSED, body.length);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

/**
 * Returns the length of a payload in bytes.
 * @param {string | Uint8Array} payload
 * @returns {number}
 */
export function payloadBytes(payload) {
  return typeof payload === 'string' ? textBytes(payload) : payload.length;
}

/**
 * @param {number} flags
 * @returns {boolean}
 */
function isPublishFor(flags) {
  return (flags & 0x3f) === 0x06;
}

/**
 * @param {Uint8Array} source
 * @param {Uint8Array} bytes
 * @param {number} at
 * @returns {number}
 */
function copy(source, bytes, at) {
  const length = source.length;
  if (length > SHORT_BYTES) bytes.set(source, at);
  else for (let index = 0; index < length; index += 1) bytes[at + index] = source[index];
  return at + length;
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 * @param {number} opId
 * @param {number} flags
 * @param {number} length
 */
function writeHeader(bytes, at, opId, flags, length) {
  bytes[at] = opId;
  bytes[at + 1] = opId >>> 8;
  bytes[at + 2] = opId >>> 16;
  bytes[at + 3] = opId >>> 24;
  bytes[at + 4] = flags;
  bytes[at + 5] = length;
  bytes[at + 6] = length >>> 8;
  bytes[at + 7] = length >>> 16;
  bytes[at + 8] = length >>> 24;
}
