/**
 * The sending side of a connection. Owns the frames to be written, the senders that wait for room, and the
 * decision when to write; never reads.
 *
 * Frames are encoded into a buffer when an operation is called, so that payloads can be changed afterwards.
 * The frames of one round of the event loop are written together. A frame whose acknowledgement is the only
 * one that is waited for is written at once: its sender probably waits for it.
 * @module
 */
export type Transport = import('../transport/transport.js').Transport;
export type Waiter = {
    run: () => void;
    fail: (error: Error) => void;
    deadline: number;
};
/** @typedef {import('../transport/transport.js').Transport} Transport */
/**
 * @typedef {object} Waiter
 * @property {() => void} run
 * @property {(error: Error) => void} fail
 * @property {number} deadline
 */
export declare class SendQueue {
    #private;
    sentSincePing: boolean;
    framesSent: number;
    bytesSent: number;
    /**
     * @param {import('../settings.js').Settings} settings
     * @param {string} address For errors.
     */
    constructor(settings: import('../settings.js').Settings, address: string);
    /**
     * Bytes queued for sending.
     * @returns {number}
     */
    get queuedBytes(): number;
    /**
     * Starts using a connection.
     * @param {Transport} transport
     */
    attach(transport: Transport): void;
    /**
     * Stops using the connection: discards the queue and fails the senders that wait.
     * @param {Error} reason
     */
    detach(reason: Error): void;
    /**
     * Throws if there is no connection.
     */
    checkConnected(): void;
    /**
     * Returns whether a frame has to wait for room.
     * @param {boolean} realtime
     * @returns {boolean}
     * @throws {ElbusError} `queue-full`: even a real-time frame has no room.
     */
    mustWait(realtime: boolean): boolean;
    /**
     * Calls `run` when there is room, in the order of these calls, or `fail` if there is none in time.
     * @param {() => void} run
     * @param {(error: Error) => void} fail
     */
    wait(run: () => void, fail: (error: Error) => void): void;
    /**
     * Queues a frame with target and payload.
     * @param {number} opId
     * @param {import('./operations.js').Request} request
     * @param {boolean} alone Write at once.
     */
    send(opId: number, { op, qos, target, receiver, head, payload }: import('./operations.js').Request, alone: boolean): void;
    /**
     * Queues a topic operation, which is acknowledged.
     * @param {number} opId
     * @param {number} op
     * @param {readonly string[]} filters
     * @param {boolean} alone Write at once.
     */
    sendFilters(opId: number, op: number, filters: readonly string[], alone: boolean): void;
    /** Queues a ping. */
    ping(): void;
    /**
     * Returns a promise for a sender without acknowledgement. A loop of sends must let other tasks run.
     * @returns {Promise<void>}
     */
    turn(): Promise<void>;
    /** The transport has room again. */
    drain(): void;
    /**
     * Waits until everything is written, or the connection is lost.
     * @returns {Promise<void>}
     */
    drained(): Promise<void>;
}
