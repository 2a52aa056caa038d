/**
 * Changes of a connection, queued for listeners. Takes no action.
 * @module
 */
export type ConnectionEvent = {
    type: 'connected';
} | {
    type: 'disconnected';
    reason: string;
} | {
    type: 'retrying';
    attempt: number;
    after: number;
    reason: string;
} | {
    type: 'closed';
} | {
    type: 'missed';
    count: number;
};
/**
 * The changes of a connection since `client.events()` was called.
 *
 * ```js
 * for await (const event of client.events()) console.log(event.type);
 * ```
 * @implements {AsyncIterableIterator<ConnectionEvent>}
 */
export declare class ConnectionEvents implements AsyncIterableIterator<ConnectionEvent> {
    #private;
    /**
     * Returns the next event; done after `closed`.
     * @returns {Promise<IteratorResult<ConnectionEvent, undefined>>}
     */
    next(): Promise<IteratorResult<ConnectionEvent, undefined>>;
    /**
     * Stops listening.
     * @returns {Promise<IteratorResult<ConnectionEvent, undefined>>}
     */
    return(): Promise<IteratorResult<ConnectionEvent, undefined>>;
    /** @returns {this} */
    [Symbol.asyncIterator](): this;
}
/** Sends events to all listeners. */
export declare class EventSender {
    #private;
    /** @returns {ConnectionEvents} */
    listen(): ConnectionEvents;
    /** @param {ConnectionEvent} event */
    emit(event: ConnectionEvent): void;
}
