/**
 * Serves calls and notifications. Owns their order and the limit of concurrent calls; what they do is the
 * method's.
 * @module
 */
/// <reference lib="esnext.disposable" preserve="true" />
export type Frame = import('../frame.js').Frame;
export type Call = import('./methods.js').Call;
export type Notification = {
    /**
     * The full name of the sender.
     */
    sender: string;
    payload: Uint8Array;
};
export type ServeOptions = {
    /**
     * Receives notifications: one at a time,
     * in order. What it throws is ignored. Without it they are dropped.
     */
    notification?: (notification: Notification) => unknown;
};
/** @typedef {import('../frame.js').Frame} Frame */
/** @typedef {import('./methods.js').Call} Call */
/**
 * A notification to this client.
 * @typedef {object} Notification
 * @property {string} sender The full name of the sender.
 * @property {Uint8Array} payload
 */
/**
 * @typedef {object} ServeOptions
 * @property {(notification: Notification) => unknown} [notification] Receives notifications: one at a time,
 *   in order. What it throws is ignored. Without it they are dropped.
 */
/**
 * Handle of a server of calls; from `client.serve`. The server ends with the client.
 */
export declare class ServeHandle {
    #private;
    /**
     * Stops accepting calls: further ones arrive at `client.frames`. Calls that have arrived are answered.
     */
    stop(): void;
    /**
     * Stops accepting calls, and waits until all that have arrived are answered.
     * @returns {Promise<void>}
     */
    drain(): Promise<void>;
    /**
     * As {@link drain}, for `await using`.
     * @returns {Promise<void>}
     */
    [Symbol.asyncDispose](): Promise<void>;
}
/** A server of calls. */
export declare class Server {
    #private;
    /**
     * @param {import('../connection/connection.js').Connection} connection
     * @param {import('../receive/inbox.js').Inbox} inbox
     * @param {object} methods
     * @param {ServeOptions} options
     */
    constructor(connection: import('../connection/connection.js').Connection, inbox: import('../receive/inbox.js').Inbox, methods: object, options: ServeOptions);
    /**
     * Waits until everything that has arrived is handled, after the inbox has ended.
     * @returns {Promise<void>}
     */
    finished(): Promise<void>;
}
