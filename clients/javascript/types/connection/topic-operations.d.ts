/**
 * Performs topic operations and keeps the wanted filters consistent with the broker's. Never the public
 * interface.
 * @module
 */
export type FilterUser = import('./filter-state.js').FilterUser;
/** @typedef {import('./filter-state.js').FilterUser} FilterUser */
export declare class TopicOperations {
    #private;
    /** Filters that the broker has refused when they were restored. */
    unrestored: number;
    /** @param {import('./connection.js').Connection} connection */
    constructor(connection: import('./connection.js').Connection);
    /**
     * Subscribes to reports of what the broker drops, once. A client that may not get them is subscribed
     * without them.
     * @returns {Promise<void>}
     */
    requestReports(): Promise<void>;
    /**
     * @param {readonly string[]} filters
     * @param {FilterUser} user
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<void>}
     */
    subscribe(filters: readonly string[], user: FilterUser, signal: AbortSignal | undefined): Promise<void>;
    /**
     * @param {readonly string[]} filters
     * @param {FilterUser} user
     * @param {AbortSignal | undefined} [signal]
     * @returns {Promise<void>}
     */
    unsubscribe(filters: readonly string[], user: FilterUser, signal?: AbortSignal | undefined): Promise<void>;
    /**
     * @param {readonly string[]} filters
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<void>}
     */
    exclude(filters: readonly string[], signal: AbortSignal | undefined): Promise<void>;
    /**
     * @param {readonly string[]} filters
     * @param {AbortSignal | undefined} signal
     * @returns {Promise<void>}
     */
    unexclude(filters: readonly string[], signal: AbortSignal | undefined): Promise<void>;
    /** Requests the filters that an earlier connection had, with a new one. */
    restore(): void;
}
