/**
 * Errors of the client. Owns their kinds and texts: what failed, the value, the limit and the remedy.
 * @module
 */

import { Code, codeText } from './wire/constants.js';
import { decodeText, encodeText } from './wire/text.js';

/**
 * What has failed:
 *
 * | kind | when |
 * |---|---|
 * | `no-broker` | nothing listens at the address |
 * | `not-a-broker` | the peer does not speak the protocol |
 * | `tls` | the TLS connection could not be established |
 * | `name-taken` | another client has the name |
 * | `name-refused` | the broker refused the name; see `code` |
 * | `no-primary` | the name is secondary, and its primary client is not registered |
 * | `access-denied` | the broker's access rules do not allow the operation |
 * | `not-registered` | no client is registered under the target's name |
 * | `not-delivered` | the target's queue is full |
 * | `refused` | the broker refused the operation; see `code` |
 * | `timeout` | the operation did not end in time |
 * | `disconnected` | the connection was lost, or there is none |
 * | `closed` | the client was closed |
 * | `rpc` | the called method returned an error: an {@link RpcError} |
 * | `unsendable` | a text contains a NUL or is not Unicode, or a part is too long |
 * | `queue-full` | the send queue is too long for another real-time frame |
 * | `not-supported` | the broker does not know the option |
 * | `bad-address` | the text is not an address |
 * | `invalid-argument` | an argument has the wrong type or is out of range |
 * | `conversion` | msgpack could not be decoded, or a value cannot be encoded |
 * | `already-serving` | the client already serves calls |
 * @typedef {'no-broker' | 'not-a-broker' | 'tls' | 'name-taken' | 'name-refused' | 'no-primary'
 *   | 'access-denied' | 'not-registered' | 'not-delivered' | 'refused' | 'timeout' | 'disconnected'
 *   | 'closed' | 'rpc' | 'unsendable' | 'queue-full' | 'not-supported' | 'bad-address'
 *   | 'invalid-argument' | 'conversion' | 'already-serving'} ErrorKind
 */

/**
 * An error of the client. Its message is one line and names a remedy if there is one.
 *
 * ```js
 * try {
 *   await client.send('plant.display', '71.5');
 * } catch (error) {
 *   if (!(error instanceof ElbusError && error.kind === 'not-registered')) throw error;
 *   console.log('the display is not running');
 * }
 * ```
 */
export class ElbusError extends Error {
  /**
   * Creates an error.
   * @param {ErrorKind} kind
   * @param {string} message
   * @param {{ code?: number, cause?: unknown }} [options]
   */
  constructor(kind, message, options = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = 'ElbusError';
    /**
     * What has failed.
     * @readonly
     * @type {ErrorKind}
     */
    this.kind = kind;
    /**
     * The code that the broker has answered with, for example 0x71, if it has; in an {@link RpcError} the
     * code of the method's error.
     * @readonly
     * @type {number | undefined}
     */
    this.code = options.code;
  }
}

/** @type {Readonly<Record<string, string>>} */
const RPC_MEANINGS = Object.freeze({
  '-32700': 'parameters cannot be parsed',
  '-32600': 'invalid request',
  '-32601': 'no such method',
  '-32602': 'invalid parameters',
  '-32603': 'internal error',
  '-32001': 'not found',
});

/**
 * Returns the RPC code for a result code of the broker.
 * @param {number} code
 * @returns {number}
 */
export function rpcCodeOf(code) {
  return -32000 - code;
}

/**
 * Returns the text of an RPC error.
 * @param {number} code
 * @param {Uint8Array} data
 * @returns {string}
 */
function rpcMessage(code, data) {
  const meaning = RPC_MEANINGS[String(code)] ?? codeText(-32000 - code);
  const prefix = `rpc error ${code}${meaning === undefined ? '' : ` (${meaning})`}`;
  if (data.length === 0) return prefix;
  const text = decodeText(data);
  return text === undefined ? `${prefix}: ${data.length} bytes of data` : `${prefix}: ${oneLine(text)}`;
}

/**
 * The error that a method returns instead of a result. A method throws it, and its caller gets it.
 *
 * ```js
 * client.serve({
 *   set(percent) {
 *     if (!(percent <= 100)) throw RpcError.invalidParams('percent must be at most 100');
 *     return percent;
 *   },
 * });
 * ```
 */
export class RpcError extends ElbusError {
  /**
   * Creates an error with a code (protocol section 7, or the method's own: -32768 to 32767) and a text or
   * bytes.
   * @param {number} code
   * @param {string | Uint8Array} [data]
   */
  constructor(code, data = '') {
    if (!Number.isInteger(code) || code < -32768 || code > 32767) {
      throw invalidArgument('the code of an RpcError', code, 'an integer from -32768 to 32767');
    }
    if (typeof data !== 'string' && !(data instanceof Uint8Array)) {
      throw invalidArgument('the data of an RpcError', data, 'a string or a Uint8Array');
    }
    const bytes = typeof data === 'string' ? encodeText(data) : data;
    super('rpc', rpcMessage(code, bytes), { code });
    this.name = 'RpcError';
    /**
     * The code of the error.
     * @readonly
     * @type {number}
     */
    this.code = code;
    /**
     * The data of the error, usually text; can be empty.
     * @readonly
     * @type {Uint8Array}
     */
    this.data = bytes;
  }

  /**
   * The data as text; `undefined` if it is not UTF-8.
   * @returns {string | undefined}
   */
  get text() {
    return decodeText(this.data);
  }

  /**
   * Returns the error for a method that does not exist: -32601.
   * @returns {RpcError}
   */
  static methodNotFound() {
    return new RpcError(-32601);
  }

  /**
   * Returns the error for parameters that do not fit the method: -32602.
   * @param {string} text
   * @returns {RpcError}
   */
  static invalidParams(text) {
    return new RpcError(-32602, text);
  }

  /**
   * Returns the error for parameters that cannot be parsed: -32700.
   * @param {string} text
   * @returns {RpcError}
   */
  static parse(text) {
    return new RpcError(-32700, text);
  }

  /**
   * Returns the error for a method that failed: -32603.
   * @param {string} text
   * @returns {RpcError}
   */
  static internal(text) {
    return new RpcError(-32603, text);
  }

  /**
   * Returns the error for an object that does not exist: -32001.
   * @returns {RpcError}
   */
  static notFound() {
    return new RpcError(-32001);
  }

  /**
   * Converts what a method has thrown: an RPC error is passed on, an error of the bus becomes its RPC code.
   * @param {unknown} error
   * @returns {RpcError}
   */
  static from(error) {
    if (error instanceof RpcError) return error;
    const text = messageOf(error);
    if (!(error instanceof ElbusError)) return RpcError.internal(text);
    switch (error.kind) {
      case 'not-registered':
        return new RpcError(rpcCodeOf(Code.NOT_REGISTERED), text);
      case 'not-delivered':
      case 'queue-full':
        return new RpcError(rpcCodeOf(Code.NOT_DELIVERED), text);
      case 'access-denied':
        return new RpcError(rpcCodeOf(Code.ACCESS_DENIED), text);
      case 'timeout':
        return new RpcError(rpcCodeOf(Code.TIMEOUT), text);
      case 'disconnected':
      case 'closed':
        return new RpcError(rpcCodeOf(Code.IO), text);
      default:
        return RpcError.internal(text);
    }
  }
}

/**
 * Returns a text in quotes, on one line and of limited length: a name or topic can be long and contain
 * anything.
 * @param {string} text
 * @returns {string}
 */
export function quoted(text) {
  const shown = JSON.stringify(text.length > 200 ? text.slice(0, 200) : text);
  return text.length > 200 ? `${shown}... (${text.length} characters)` : shown;
}

/**
 * Returns a text on one line.
 * @param {string} text
 * @returns {string}
 */
function oneLine(text) {
  return JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"');
}

/**
 * Returns the message of anything that was thrown. Never throws.
 * @param {unknown} error
 * @returns {string}
 */
export function messageOf(error) {
  try {
    if (!(error instanceof Error)) return String(error);
    // Node reports several failed addresses of a host without a text
    const { errors } = /** @type {{ errors?: unknown[] }} */ (error);
    if (error.message === '' && Array.isArray(errors)) return errors.map(messageOf).join(', ');
    return String(error.message === '' ? error.name : error.message);
  } catch {
    return 'a value without a text was thrown'; // for example an object without a prototype
  }
}

/**
 * @param {string} reason
 * @param {unknown} [cause]
 * @returns {ElbusError}
 */
export function disconnected(reason, cause) {
  return new ElbusError('disconnected', `not connected: ${reason}`, cause === undefined ? {} : { cause });
}

/** @returns {ElbusError} */
export function closed() {
  return new ElbusError('closed', 'the client has been closed: connect a new one');
}

/**
 * @param {string} operation
 * @param {number} after Milliseconds.
 * @returns {ElbusError}
 */
export function timedOut(operation, after) {
  const remedy = 'check that the peer runs, or set a longer timeout';
  return new ElbusError('timeout', `${operation}: timed out after ${after / 1000} s: ${remedy}`);
}

/**
 * @param {string} what The argument.
 * @param {unknown} value
 * @param {string} expected
 * @returns {ElbusError}
 */
export function invalidArgument(what, value, expected) {
  return new ElbusError('invalid-argument', `${what} is ${described(value)}: expected ${expected}`);
}

/**
 * Describes a value for an error.
 * @param {unknown} value
 * @returns {string}
 */
function described(value) {
  if (typeof value === 'string') return quoted(value);
  if (value === null || ['undefined', 'number', 'boolean', 'bigint'].includes(typeof value))
    return String(value);
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'symbol') return 'a symbol';
  const { constructor } = /** @type {object} */ (value);
  const name = typeof constructor === 'function' ? constructor.name : '';
  return name === '' ? 'an object' : `an object of type ${name}`;
}

/**
 * Converts the code of an acknowledgement. `operation` is a verb that precedes the target.
 * @param {number} code
 * @param {string} operation
 * @param {string} target
 * @returns {ElbusError}
 */
export function fromCode(code, operation, target) {
  const what = `${operation} ${quoted(target)}`;
  switch (code) {
    case Code.NOT_REGISTERED: {
      const text = `no client is registered as ${quoted(target)}: start it or check the name`;
      return new ElbusError('not-registered', text, { code });
    }
    case Code.NOT_DELIVERED: {
      const text = `not delivered: the queue of ${quoted(target)} is full: send less, or without real-time`;
      return new ElbusError('not-delivered', text, { code });
    }
    case Code.ACCESS_DENIED: {
      const text = `access denied: ${what}: the broker's access rules do not allow it`;
      return new ElbusError('access-denied', text, { code });
    }
    default: {
      const hex = `0x${code.toString(16).padStart(2, '0')}`;
      const known = codeText(code);
      const answer = known === undefined ? `with the unknown code ${hex}` : `(${known}, ${hex})`;
      return new ElbusError('refused', `${what}: refused by the broker ${answer}`, { code });
    }
  }
}
