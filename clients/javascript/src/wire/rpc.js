/**
 * The payloads of RPC (protocol section 7). Never decodes parameters or results.
 * @module
 */

import { textBytes, writeText } from './text.js';

export const RpcKind = Object.freeze({ NOTIFICATION: 0x00, REQUEST: 0x01, REPLY: 0x11, ERROR: 0x12 });
/** The id of calls without a reply. */
export const NO_REPLY = 0;

const EMPTY = new Uint8Array(0);

/**
 * A decoded payload.
 * @typedef {{ kind: 'notification', payload: Uint8Array }
 *   | { kind: 'request', id: number, method: Uint8Array, params: Uint8Array }
 *   | { kind: 'reply', id: number, result: Uint8Array }
 *   | { kind: 'error', id: number, code: number, data: Uint8Array }} RpcPayload
 */

/**
 * Why a payload is not RPC.
 * @typedef {'empty' | 'unknown-kind' | 'truncated' | 'missing-nul'} RpcFault
 */

/**
 * Decodes a payload. The parts share its memory.
 * @param {Uint8Array} payload
 * @returns {RpcPayload | RpcFault}
 */
export function decodeRpc(payload) {
  switch (payload[0]) {
    case undefined:
      return 'empty';
    case RpcKind.NOTIFICATION:
      return { kind: 'notification', payload: payload.subarray(1) };
    case RpcKind.REQUEST: {
      if (payload.length < 5) return 'truncated';
      const end = payload.indexOf(0, 5);
      if (end < 0) return 'missing-nul';
      const params = payload.subarray(end + 1);
      return { kind: 'request', id: idOf(payload), method: payload.subarray(5, end), params };
    }
    case RpcKind.REPLY:
      if (payload.length < 5) return 'truncated';
      return { kind: 'reply', id: idOf(payload), result: payload.subarray(5) };
    case RpcKind.ERROR: {
      if (payload.length < 7) return 'truncated';
      const code = ((payload[5] | (payload[6] << 8)) << 16) >> 16;
      return { kind: 'error', id: idOf(payload), code, data: payload.subarray(7) };
    }
    default:
      return 'unknown-kind';
  }
}

/**
 * @param {Uint8Array} payload
 * @returns {number}
 */
function idOf(payload) {
  return (payload[1] | (payload[2] << 8) | (payload[3] << 16) | (payload[4] << 24)) >>> 0;
}

/**
 * Returns what precedes the payload of a notification.
 * @returns {Uint8Array}
 */
export function notificationHead() {
  return new Uint8Array([RpcKind.NOTIFICATION]);
}

/**
 * Returns what precedes the parameters of a request. The caller has checked that the method contains no NUL.
 * @param {number} id
 * @param {string} method
 * @returns {Uint8Array}
 */
export function requestHead(id, method) {
  const head = new Uint8Array(6 + textBytes(method));
  head[0] = RpcKind.REQUEST;
  writeId(head, id);
  writeText(method, head, 5);
  return head;
}

/**
 * Returns what precedes a result.
 * @param {number} id
 * @returns {Uint8Array}
 */
export function replyHead(id) {
  const head = new Uint8Array(5);
  head[0] = RpcKind.REPLY;
  writeId(head, id);
  return head;
}

/**
 * Returns what precedes the data of an error.
 * @param {number} id
 * @param {number} code
 * @returns {Uint8Array}
 */
export function errorHead(id, code) {
  const head = new Uint8Array(7);
  head[0] = RpcKind.ERROR;
  writeId(head, id);
  head[5] = code & 0xff;
  head[6] = (code >> 8) & 0xff;
  return head;
}

/**
 * @param {Uint8Array} head
 * @param {number} id
 */
function writeId(head, id) {
  head[1] = id;
  head[2] = id >>> 8;
  head[3] = id >>> 16;
  head[4] = id >>> 24;
}

export { EMPTY };
