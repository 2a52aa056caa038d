/**
 * A queue in an array: constant time at both ends that a queue uses.
 * @module
 */

/** Places that are freed before the array is made shorter. */
const FREED_PLACES = 1024;

/**
 * A first-in, first-out queue.
 * @template T
 */
export class Deque {
  /** @type {(T | undefined)[]} */
  #items = [];
  #head = 0;

  /** @returns {number} */
  get length() {
    return this.#items.length - this.#head;
  }

  /** @param {T} item */
  push(item) {
    this.#items.push(item);
  }

  /** @returns {T | undefined} */
  peek() {
    return this.#items[this.#head];
  }

  /** @returns {T | undefined} */
  shift() {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    this.#items[this.#head] = undefined;
    this.#head += 1;
    if (this.#head === this.#items.length) {
      this.#items = [];
      this.#head = 0;
    } else if (this.#head >= FREED_PLACES && 2 * this.#head >= this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  /**
   * Returns the item at a distance from the front.
   * @param {number} index
   * @returns {T | undefined}
   */
  at(index) {
    return this.#items[this.#head + index];
  }

  /**
   * Replaces the item at a distance from the front.
   * @param {number} index
   * @param {T} item
   */
  set(index, item) {
    this.#items[this.#head + index] = item;
  }

  /**
   * Removes and returns all items.
   * @returns {T[]}
   */
  clear() {
    const items = /** @type {T[]} */ (this.#items.slice(this.#head));
    this.#items = [];
    this.#head = 0;
    return items;
  }
}
