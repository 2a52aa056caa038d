/**
 * Calls that wait for their reply. Owns call ids, timeouts and outcomes; never sends.
 * @module
 */
export type PendingCall = {
    target: string;
    resolve: (result: Uint8Array) => void;
    reject: (error: Error) => void;
    timer: unknown;
    /**
     * Called once, before the outcome.
     */
    settled: () => void;
};
/**
 * @typedef {object} PendingCall
 * @property {string} target
 * @property {(result: Uint8Array) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {unknown} timer
 * @property {() => void} settled Called once, before the outcome.
 */
export declare class PendingCalls {
    #private;
    /** @param {import('../clock.js').Clock} clock */
    constructor(clock: import('../clock.js').Clock);
    /** @returns {number} */
    get size(): number;
    /**
     * Returns a new id.
     * @returns {number}
     */
    issueId(): number;
    /**
     * Adds a call. The returned promise settles with its outcome.
     * @param {number} id
     * @param {string} target
     * @param {number} timeout Milliseconds.
     * @param {() => Error} timedOut
     * @param {() => void} settled
     * @returns {Promise<Uint8Array>}
     */
    add(id: number, target: string, timeout: number, timedOut: () => Error, settled: () => void): Promise<Uint8Array>;
    /**
     * Completes a call with a reply. Returns `false` if no call with this id to this sender is pending.
     * @param {number} id
     * @param {string} sender
     * @param {Uint8Array | Error} outcome
     * @returns {boolean}
     */
    complete(id: number, sender: string, outcome: Uint8Array | Error): boolean;
    /**
     * Fails a call.
     * @param {number} id
     * @param {Error} error
     */
    fail(id: number, error: Error): void;
    /**
     * Fails a call that the broker has not delivered.
     * @param {number} id
     * @param {number} code
     */
    refuse(id: number, code: number): void;
    /**
     * Fails all calls.
     * @param {Error} error
     */
    failAll(error: Error): void;
    /**
     * Returns whether an id has been issued before.
     * @param {number} id
     * @returns {boolean}
     */
    wasIssued(id: number): boolean;
}
