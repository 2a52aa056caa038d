/**
 * The queue of received frames between a connection and one consumer. Owns its limit, the choice of frames to
 * drop, and the count of dropped frames; does not know the source of frames.
 * @module
 */
export type Frame = import('../frame.js').Frame;
export type FrameResult = IteratorResult<Frame, undefined>;
export declare class Inbox {
    #private;
    limit: number;
    /** Queued bytes. */
    bytes: number;
    /** Frames that were dropped so far. */
    missed: number;
    /** The consumer has taken nothing for too long: frames over the limit are dropped until it continues. */
    stalled: boolean;
    /** When the consumer has last taken a frame; only while the limit is exceeded. */
    progress: number;
    /** Whether there is a consumer that the connection can wait for. */
    claimed: boolean;
    /**
     * @param {number} limit In bytes.
     * @param {import('../settings.js').Overflow} overflow
     * @param {import('./read-gate.js').ReadGate} gate
     */
    constructor(limit: number, overflow: import('../settings.js').Overflow, gate: import('./read-gate.js').ReadGate);
    /**
     * The number of queued frames.
     * @returns {number}
     */
    get length(): number;
    /**
     * Appends a frame. Returns whether there is a consumer.
     * @param {Frame} frame
     * @returns {boolean}
     */
    push(frame: Frame): boolean;
    /**
     * Counts publications that the broker has dropped; the next frame reports them.
     * @param {number} count
     */
    addMissed(count: number): void;
    /**
     * Returns the next frame if one is queued.
     * @returns {Frame | undefined}
     */
    take(): Frame | undefined;
    /**
     * Returns the next frame; done after the end. An aborted signal loses no frame.
     * @param {AbortSignal} [signal]
     * @returns {Promise<FrameResult>}
     */
    next(signal?: AbortSignal): Promise<FrameResult>;
    /** Ends the queue: the consumer gets the queued frames, then the end. */
    end(): void;
    /** Ends the queue and drops what is in it. */
    discard(): void;
}
