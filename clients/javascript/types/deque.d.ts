/**
 * A queue in an array: constant time at both ends that a queue uses.
 * @module
 */
/**
 * A first-in, first-out queue.
 * @template T
 */
export declare class Deque<T> {
    #private;
    /** @returns {number} */
    get length(): number;
    /** @param {T} item */
    push(item: T): void;
    /** @returns {T | undefined} */
    peek(): T | undefined;
    /** @returns {T | undefined} */
    shift(): T | undefined;
    /**
     * Returns the item at a distance from the front.
     * @param {number} index
     * @returns {T | undefined}
     */
    at(index: number): T | undefined;
    /**
     * Replaces the item at a distance from the front.
     * @param {number} index
     * @param {T} item
     */
    set(index: number, item: T): void;
    /**
     * Removes and returns all items.
     * @returns {T[]}
     */
    clear(): T[];
}
