/**
 * Routes each received frame to its consumer: the caller of a reply, the server of calls, the subscriptions
 * whose filter matches, or the frames of the client. Owns these tables; never reads a socket.
 * @module
 */
export type Frame = import('../frame.js').Frame;
export type Inbox = import('./inbox.js').Inbox;
/** @typedef {import('../frame.js').Frame} Frame */
/** @typedef {import('./inbox.js').Inbox} Inbox */
export declare class Demux {
    #private;
    /** What `addFilters` has added: a filter, and whether one matches a topic.
     * @type {{ has: (filter: string) => boolean, match: (topic: string) => boolean }} */
    framesFilters: {
        has: (filter: string) => boolean;
        match: (topic: string) => boolean;
    };
    /** Whether the broker delivers publications to a topic because of a filter that no group shares. Set by the
     * owner of all filters.
     * @type {(topic: string) => boolean} */
    isAlone: (topic: string) => boolean;
    received: number;
    /** Frames without a consumer. */
    unclaimed: number;
    /**
     * @param {Inbox} frames
     * @param {import('./pending-calls.js').PendingCalls} calls
     */
    constructor(frames: Inbox, calls: import('./pending-calls.js').PendingCalls);
    /** @param {Frame} frame */
    deliver(frame: Frame): void;
    /** Has the cached consumers of topics determined again. */
    filtersChanged(): void;
    /**
     * Adds a subscription: publications that match are delivered to the inbox. Returns its id.
     * @param {string[]} filters
     * @param {Inbox} inbox
     * @returns {number}
     */
    addSubscription(filters: string[], inbox: Inbox): number;
    /**
     * Removes a subscription. Returns its filters; none if it was removed before.
     * @param {number} id
     * @returns {string[]}
     */
    removeSubscription(id: number): string[];
    /**
     * Whether no inbox receives calls.
     * @returns {boolean}
     */
    get canServe(): boolean;
    /**
     * Delivers calls and notifications to the inbox.
     * @param {Inbox} inbox
     */
    startServing(inbox: Inbox): void;
    /**
     * Ends the inbox of calls; further calls and notifications are delivered as ordinary frames.
     * @param {Inbox} inbox
     */
    stopServing(inbox: Inbox): void;
    /** Ends all inboxes. */
    end(): void;
}
