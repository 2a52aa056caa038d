/**
 * The subscriptions and exclusions that the user wants, which outlive a connection: the broker forgets them
 * when it ends. Owns the sets; never sends.
 * @module
 */
/**
 * Splits filters into groups that fit into one frame.
 * @param {readonly string[]} filters
 * @returns {string[][]}
 */
export declare function frameGroups(filters: readonly string[]): string[][];
export type FilterUser = 'frames' | 'subscription';
/**
 * Which part of a client uses a filter: `addFilters`, or a subscription with its own queue.
 * @typedef {'frames' | 'subscription'} FilterUser
 */
export declare class FilterState {
    #private;
    /**
     * Adds a use of a filter. Returns whether it is new, and `unsubscribe` reverts it.
     * @param {string} filter
     * @param {FilterUser} user
     * @returns {boolean}
     */
    subscribe(filter: string, user: FilterUser): boolean;
    /**
     * Removes a use of a filter. Returns whether it was the last one, so that the broker has to unsubscribe the
     * client.
     * @param {string} filter
     * @param {FilterUser} user
     * @returns {boolean}
     */
    unsubscribe(filter: string, user: FilterUser): boolean;
    /**
     * Returns whether the filter is in use.
     * @param {string} filter
     * @returns {boolean}
     */
    isSubscribed(filter: string): boolean;
    /**
     * Notes that the broker has acknowledged these filters.
     * @param {readonly string[]} filters
     */
    acknowledge(filters: readonly string[]): void;
    /**
     * Returns whether the broker delivers publications to a topic because of a filter that no group shares.
     * Takes as long as there are filters.
     * @param {string} topic
     * @returns {boolean}
     */
    isAlone(topic: string): boolean;
    /**
     * Returns the filters of `addFilters`.
     * @returns {string[]}
     */
    framesFilters(): string[];
    /**
     * Adds an exclusion. Returns whether it is new.
     * @param {string} filter
     * @returns {boolean}
     */
    exclude(filter: string): boolean;
    /** @param {string} filter */
    unexclude(filter: string): void;
    /**
     * Returns whether restoring the state includes this operation on the filter.
     * @param {number} op
     * @param {string} filter
     * @returns {boolean}
     */
    includes(op: number, filter: string): boolean;
    /**
     * Returns the operations that restore this state with a new connection, in order: exclusions first.
     * @returns {[number, string[]][]}
     */
    operations(): [number, string[]][];
}
