/**
 * Pauses the reading of a connection while a consumer is slow. Owns the list of inboxes that are over their
 * limit; never a queue.
 * @module
 */
export type Inbox = import('./inbox.js').Inbox;
export declare class ReadGate {
    #private;
    /**
     * @param {import('../clock.js').Clock} clock
     * @param {number} holdLimit Milliseconds.
     * @param {() => boolean} inFlight
     */
    constructor(clock: import('../clock.js').Clock, holdLimit: number, inFlight: () => boolean);
    /**
     * Whether the connection is not read.
     * @returns {boolean}
     */
    get paused(): boolean;
    /** @param {import('../transport/transport.js').Transport} transport */
    attach(transport: import('../transport/transport.js').Transport): void;
    detach(): void;
    /**
     * An inbox exceeds its limit.
     * @param {Inbox} inbox
     */
    add(inbox: Inbox): void;
    /**
     * The consumer of an inbox that exceeds its limit has taken a frame.
     * @param {Inbox} inbox
     */
    taken(inbox: Inbox): void;
    /** @param {Inbox} inbox */
    remove(inbox: Inbox): void;
    /** An operation waits for its outcome from now on. */
    operationStarted(): void;
    /** Pauses or resumes. */
    update(): void;
}
