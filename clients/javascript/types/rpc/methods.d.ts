/**
 * The methods of a server: of an object, an instance of a class, or one function. Owns the conversion of
 * parameters and results; never sends.
 * @module
 */
import { RpcError } from '../errors.js';
export type Call = {
    /**
     * The full name of the caller.
     */
    sender: string;
    /**
     * The name of the caller without the suffix of a secondary client.
     */
    primarySender: string;
    method: string;
    /**
     * The parameters, by convention msgpack; empty if there are none.
     */
    params: Uint8Array;
    /**
     * Whether the call was sent as real-time. The reply is then, too.
     */
    realtime: boolean;
    wantsReply: boolean;
};
export type Method = (params: any, call: Call) => unknown;
export type RawFunction = (params: Uint8Array, call: Call) => Bytes | Promise<Bytes>;
export type Bytes = Uint8Array | undefined;
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
declare class RawMethod {
    method: (params: Uint8Array, call: Call) => unknown;
    /** @param {(params: Uint8Array, call: Call) => unknown} method */
    constructor(method: (params: Uint8Array, call: Call) => unknown);
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
export declare function raw(method: RawFunction): RawMethod;
/**
 * Returns whether a method has returned a promise.
 * @param {unknown} value
 * @returns {boolean}
 */
export declare function isThenable(value: unknown): boolean;
/**
 * @param {unknown} result
 * @returns {Uint8Array | RpcError}
 */
export declare function resultBytes(result: unknown): Uint8Array | RpcError;
/**
 * Returns the function that answers calls: of one function for all methods, or of an object whose functions
 * are methods. An instance of a class has the functions of the object and of its own class, without the
 * constructor, names that begin with `_`, and what the class inherits.
 * @param {object} methods
 * @returns {(params: Uint8Array, call: Call) => unknown}
 */
export declare function methodTable(methods: object): (params: Uint8Array, call: Call) => unknown;
export {};
