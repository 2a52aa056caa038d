/**
 * Errors of the client. Owns their kinds and texts: what failed, the value, the limit and the remedy.
 * @module
 */
export type ErrorKind = 'no-broker' | 'not-a-broker' | 'tls' | 'name-taken' | 'name-refused' | 'no-primary' | 'access-denied' | 'not-registered' | 'not-delivered' | 'refused' | 'timeout' | 'disconnected' | 'closed' | 'rpc' | 'unsendable' | 'queue-full' | 'not-supported' | 'bad-address' | 'invalid-argument' | 'conversion' | 'already-serving';
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
export declare class ElbusError extends Error {
    /**
     * What has failed.
     * @readonly
     * @type {ErrorKind}
     */
    kind: ErrorKind;
    /**
     * The code that the broker has answered with, for example 0x71, if it has; in an {@link RpcError} the
     * code of the method's error.
     * @readonly
     * @type {number | undefined}
     */
    code: number | undefined;
    /**
     * Creates an error.
     * @param {ErrorKind} kind
     * @param {string} message
     * @param {{ code?: number, cause?: unknown }} [options]
     */
    constructor(kind: ErrorKind, message: string, options?: {
        code?: number;
        cause?: unknown;
    });
}
/**
 * Returns the RPC code for a result code of the broker.
 * @param {number} code
 * @returns {number}
 */
export declare function rpcCodeOf(code: number): number;
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
export declare class RpcError extends ElbusError {
    /**
     * The code of the error.
     * @readonly
     * @type {number}
     */
    code: number;
    /**
     * The data of the error, usually text; can be empty.
     * @readonly
     * @type {Uint8Array}
     */
    data: Uint8Array;
    /**
     * Creates an error with a code (protocol section 7, or the method's own: -32768 to 32767) and a text or
     * bytes.
     * @param {number} code
     * @param {string | Uint8Array} [data]
     */
    constructor(code: number, data?: string | Uint8Array);
    /**
     * The data as text; `undefined` if it is not UTF-8.
     * @returns {string | undefined}
     */
    get text(): string | undefined;
    /**
     * Returns the error for a method that does not exist: -32601.
     * @returns {RpcError}
     */
    static methodNotFound(): RpcError;
    /**
     * Returns the error for parameters that do not fit the method: -32602.
     * @param {string} text
     * @returns {RpcError}
     */
    static invalidParams(text: string): RpcError;
    /**
     * Returns the error for parameters that cannot be parsed: -32700.
     * @param {string} text
     * @returns {RpcError}
     */
    static parse(text: string): RpcError;
    /**
     * Returns the error for a method that failed: -32603.
     * @param {string} text
     * @returns {RpcError}
     */
    static internal(text: string): RpcError;
    /**
     * Returns the error for an object that does not exist: -32001.
     * @returns {RpcError}
     */
    static notFound(): RpcError;
    /**
     * Converts what a method has thrown: an RPC error is passed on, an error of the bus becomes its RPC code.
     * @param {unknown} error
     * @returns {RpcError}
     */
    static from(error: unknown): RpcError;
}
/**
 * Returns a text in quotes, on one line and of limited length: a name or topic can be long and contain
 * anything.
 * @param {string} text
 * @returns {string}
 */
export declare function quoted(text: string): string;
/**
 * Returns the message of anything that was thrown. Never throws.
 * @param {unknown} error
 * @returns {string}
 */
export declare function messageOf(error: unknown): string;
/**
 * @param {string} reason
 * @param {unknown} [cause]
 * @returns {ElbusError}
 */
export declare function disconnected(reason: string, cause?: unknown): ElbusError;
/** @returns {ElbusError} */
export declare function closed(): ElbusError;
/**
 * @param {string} operation
 * @param {number} after Milliseconds.
 * @returns {ElbusError}
 */
export declare function timedOut(operation: string, after: number): ElbusError;
/**
 * @param {string} what The argument.
 * @param {unknown} value
 * @param {string} expected
 * @returns {ElbusError}
 */
export declare function invalidArgument(what: string, value: unknown, expected: string): ElbusError;
/**
 * Converts the code of an acknowledgement. `operation` is a verb that precedes the target.
 * @param {number} code
 * @param {string} operation
 * @param {string} target
 * @returns {ElbusError}
 */
export declare function fromCode(code: number, operation: string, target: string): ElbusError;
