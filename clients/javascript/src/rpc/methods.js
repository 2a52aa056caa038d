/**
 * The methods of a server: of an object, an instance of a class, or one function. Owns the conversion of
 * parameters and results; never sends.
 * @module
 */

import { invalidArgument, messageOf, RpcError } from '../errors.js';
import { decode } from '../msgpack/decode.js';
import { encode } from '../msgpack/encode.js';
import { EMPTY } from '../wire/rpc.js';
import { CursorMethod, ServerCursors } from './server-cursors.js';

/**
 * A call of a method of this client.
 * @typedef {object} Call
 * @property {string} sender The full name of the caller.
 * @property {string} primarySender The name of the caller without the suffix of a secondary client.
 * @property {string} method
 * @property {Uint8Array} params The parameters, by convention msgpack; empty if there are none.
 * @property {boolean} realtime Whether the call was sent as real-time. The reply is then, too.
 * @property {boolean} wantsReply
 */

/**
 * A method: gets the parameters, `undefined` if there are none, and returns the result or a promise of it.
 * @typedef {(params: any, call: Call) => unknown} Method
 */

/**
 * A method that gets its parameters as bytes, and returns bytes, or `undefined` for none.
 * @typedef {(params: Uint8Array, call: Call) => Bytes | Promise<Bytes>} RawFunction
 */
/** @typedef {Uint8Array | undefined} Bytes */

/** A method that gets and returns bytes instead of values; from {@link raw}. */
class RawMethod {
  /** @param {(params: Uint8Array, call: Call) => unknown} method */
  constructor(method) {
    this.method = method;
  }
}

/**
 * Makes a method of {@link import('../client.js').Client.serve} get its parameters as bytes and return bytes,
 * or `undefined` for none.
 *
 * ```js
 * client.serve({ echo: raw((params) => params) });
 * ```
 * @param {RawFunction} method
 * @returns {RawMethod}
 */
export function raw(method) {
  if (typeof method !== 'function') throw invalidArgument('the argument of raw', method, 'a function');
  return new RawMethod(method);
}

/**
 * Returns whether a method has returned a promise.
 * @param {unknown} value
 * @returns {boolean}
 */
export function isThenable(value) {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

/** A result that is sent as it is. */
class RawResult {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
  }
}

/**
 * @param {unknown} result
 * @returns {Uint8Array | RpcError}
 */
export function resultBytes(result) {
  if (result instanceof RawResult) return result.bytes;
  try {
    return encode(result);
  } catch (error) {
    return RpcError.internal(messageOf(error));
  }
}

/**
 * Returns the function that answers calls: of one function for all methods, or of an object whose functions
 * are methods. An instance of a class has the functions of the object and of its own class, without the
 * constructor, names that begin with `_`, and what the class inherits.
 * @param {object} methods
 * @returns {(params: Uint8Array, call: Call) => unknown}
 */
export function methodTable(methods) {
  if (methods instanceof RawMethod) return rawAnswer(methods, undefined);
  if (typeof methods === 'function') return valueAnswer(/** @type {Method} */ (methods), undefined);
  if (Array.isArray(methods) || methods instanceof Map) {
    throw invalidArgument('the methods', methods, 'an object whose functions are methods');
  }
  /** @type {Map<string, (params: Uint8Array, call: Call) => unknown>} */
  const table = new Map();
  const cursors = new ServerCursors();
  for (const [name, method] of namedMethods(methods)) {
    if (method instanceof RawMethod) {
      table.set(name, rawAnswer(method, methods));
    } else if (method instanceof CursorMethod) {
      table.set(
        name,
        valueAnswer((params, call) => cursors.open(call.sender, method, params, call), undefined),
      );
      table.set(method.next, (params, call) =>
        after(cursors.next(call.sender, parse(params)), (bytes) => new RawResult(bytes)),
      );
    } else {
      table.set(name, valueAnswer(method, methods));
    }
  }
  if (table.size === 0) throw invalidArgument('the methods', methods, 'an object with at least one function');
  return (params, call) => {
    const method = table.get(call.method);
    if (method === undefined) throw RpcError.methodNotFound();
    return method(params, call);
  };
}

/**
 * @param {object} methods
 * @returns {Map<string, Method | RawMethod | CursorMethod>}
 */
function namedMethods(methods) {
  const found = new Map();
  const isPlain = [Object.prototype, null].includes(Object.getPrototypeOf(methods));
  for (const object of isPlain ? [methods] : [methods, Object.getPrototypeOf(methods)]) {
    for (const name of Object.getOwnPropertyNames(object)) {
      if (name === 'constructor' || name.startsWith('_') || found.has(name)) continue;
      const value = Object.getOwnPropertyDescriptor(object, name)?.value;
      const isMethod =
        typeof value === 'function' || value instanceof RawMethod || value instanceof CursorMethod;
      if (isMethod) found.set(name, value);
    }
  }
  return found;
}

/**
 * @param {RawMethod} raw
 * @param {object | undefined} owner
 * @returns {(params: Uint8Array, call: Call) => unknown}
 */
function rawAnswer({ method }, owner) {
  const checked = (/** @type {unknown} */ result) => {
    if (result === undefined) return new RawResult(EMPTY);
    if (result instanceof Uint8Array) return new RawResult(result);
    throw RpcError.internal('the method returned no bytes');
  };
  return (params, call) => after(method.call(owner, params, call), checked);
}

/**
 * @param {Method} method
 * @param {object | undefined} owner
 * @returns {(params: Uint8Array, call: Call) => unknown}
 */
function valueAnswer(method, owner) {
  return (params, call) => method.call(owner, parse(params), call);
}

/**
 * Decodes parameters for a method.
 * @param {Uint8Array} params
 * @returns {any}
 */
function parse(params) {
  if (params.length === 0) return undefined;
  try {
    return decode(params);
  } catch (error) {
    throw RpcError.parse(messageOf(error));
  }
}

/**
 * Applies a function to a value or to what a promise resolves to.
 * @param {any} value
 * @param {(value: any) => unknown} map
 * @returns {unknown}
 */
function after(value, map) {
  return isThenable(value) ? Promise.resolve(value).then(map) : map(value);
}
