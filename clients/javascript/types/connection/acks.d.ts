/**
 * Operations that wait for their acknowledgement. Owns operation ids and timeouts; never sends.
 *
 * Ids count up and a broker acknowledges in order, so that an entry is found by its distance from the oldest
 * one.
 * @module
 */
export type PendingAck = {
    acked: (code: number) => void;
    /**
     * The connection was lost.
     */
    lost: (error: Error) => void;
    /**
     * The acknowledgement has not come in time.
     */
    expired: () => void;
    /**
     * Set by the table.
     */
    deadline: number;
};
/**
 * An operation that waits.
 * @typedef {object} PendingAck
 * @property {(code: number) => void} acked
 * @property {(error: Error) => void} lost The connection was lost.
 * @property {() => void} expired The acknowledgement has not come in time.
 * @property {number} deadline Set by the table.
 */
export declare class AckTable {
    #private;
    /**
     * @param {import('../clock.js').Clock} clock
     * @param {number} timeout Milliseconds.
     */
    constructor(clock: import('../clock.js').Clock, timeout: number);
    /**
     * Waits until no operation waits.
     * @returns {Promise<void>}
     */
    idle(): Promise<void>;
    /**
     * The number of operations that wait.
     * @returns {number}
     */
    get size(): number;
    /**
     * The id of the next entry.
     * @returns {number}
     */
    get nextId(): number;
    /**
     * Adds an entry under {@link AckTable.nextId}.
     * @param {PendingAck} entry
     * @param {boolean} expires Whether it has a timeout.
     */
    insert(entry: PendingAck, expires: boolean): void;
    /**
     * Completes an operation. Ids that are unknown, or whose operation was abandoned, are ignored.
     * @param {number} id
     * @param {number} code
     */
    complete(id: number, code: number): void;
    /**
     * Forgets an operation: its acknowledgement will be ignored.
     * @param {number} id
     */
    abandon(id: number): void;
    /**
     * Fails all operations.
     * @param {Error} error
     */
    failAll(error: Error): void;
}
