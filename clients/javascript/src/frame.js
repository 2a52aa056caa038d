/**
 * A received frame. Owns the position of its payload; never knows its consumer.
 * @module
 */

import { decode } from './msgpack/decode.js';
import { primaryOf } from './wire/constants.js';
import { decodeTextLossy } from './wire/text.js';

/** The memory that a frame is counted with besides its bytes. */
const FRAME_BYTES = 160;

/**
 * A received message, broadcast or publication.
 *
 * Small frames that arrive together share one buffer, which is freed with the last of them: copy the payload
 * (`payload.slice()`) to keep one of many for long.
 *
 * ```js
 * for await (const frame of client.subscribe('temperature/+')) {
 *   console.log(frame.sender, frame.topic, frame.text());
 * }
 * ```
 */
export class Frame {
  /** @type {Uint8Array} */
  #chunk;
  /** @type {number} */
  #start;
  /** @type {number} */
  #end;
  /** @type {Uint8Array | undefined} */
  #payload = undefined;
  #pinned = 0;

  /**
   * Frames are created by the client.
   * @internal
   * @param {'message' | 'broadcast' | 'publish'} kind
   * @param {boolean} realtime
   * @param {string} sender
   * @param {string} topic
   * @param {Uint8Array} chunk
   * @param {number} start
   * @param {number} end
   */
  constructor(kind, realtime, sender, topic, chunk, start, end) {
    /**
     * What the sender has sent.
     * @readonly
     */
    this.kind = kind;
    /**
     * Whether the frame was sent as real-time.
     * @readonly
     */
    this.realtime = realtime;
    /**
     * The full name of the sender, including the suffix of a secondary client.
     * @readonly
     */
    this.sender = sender;
    /**
     * The topic of a publication, which can be empty. For other frames it is empty.
     * @readonly
     */
    this.topic = topic;
    /**
     * How many frames were dropped directly before this one, because its consumer was slow; see `overflow`.
     * @type {number}
     */
    this.missed = 0;
    this.#chunk = chunk;
    this.#start = start;
    this.#end = end;
  }

  /**
   * The payload. It shares memory with frames that arrived together.
   * @returns {Uint8Array}
   */
  get payload() {
    if (this.#payload === undefined) {
      const { buffer, byteOffset } = this.#chunk;
      this.#payload = new Uint8Array(buffer, byteOffset + this.#start, this.#end - this.#start);
    }
    return this.#payload;
  }

  /**
   * The name of the sender without the suffix of a secondary client.
   * @returns {string}
   */
  get primarySender() {
    return primaryOf(this.sender);
  }

  /**
   * Returns the payload as text. What is not UTF-8 becomes U+FFFD.
   * @returns {string}
   */
  text() {
    return decodeTextLossy(this.payload);
  }

  /**
   * Returns the payload as a value of JSON.
   * @returns {any}
   * @throws {SyntaxError} The payload is not JSON.
   */
  json() {
    return JSON.parse(this.text());
  }

  /**
   * Returns the payload as a value of msgpack.
   * @returns {any}
   * @throws {import('./errors.js').ElbusError} `conversion`: the payload is not one value of msgpack.
   */
  msgpack() {
    return decode(this.payload);
  }

  /**
   * The first byte of the payload; `undefined` if it is empty.
   * @internal
   * @returns {number | undefined}
   */
  get firstByte() {
    return this.#start < this.#end ? this.#chunk[this.#start] : undefined;
  }

  /**
   * The memory that a queue has counted for the frame's buffer.
   * @internal
   * @returns {number}
   */
  get pinned() {
    return this.#pinned;
  }

  /**
   * @internal
   * @param {number} bytes
   */
  set pinned(bytes) {
    this.#pinned = bytes;
  }

  /**
   * The chunk whose buffer the frame keeps in memory.
   * @internal
   * @returns {Uint8Array}
   */
  get chunk() {
    return this.#chunk;
  }

  /**
   * The memory that the frame is counted with in a queue, in bytes.
   * @internal
   * @returns {number}
   */
  get cost() {
    return this.#end - this.#start + FRAME_BYTES + this.topic.length;
  }

  /**
   * Returns a copy for another consumer, which shares the bytes.
   * @internal
   * @returns {Frame}
   */
  clone() {
    return new Frame(this.kind, this.realtime, this.sender, this.topic, this.#chunk, this.#start, this.#end);
  }

  /**
   * Copies the payload out of a buffer that it shares.
   * @internal
   */
  detach() {
    if (this.#end - this.#start === this.#chunk.buffer.byteLength) return;
    this.#chunk = Uint8Array.prototype.slice.call(this.#chunk, this.#start, this.#end);
    this.#end -= this.#start;
    this.#start = 0;
    this.#payload = undefined;
  }

  /**
   * Shows the frame in the console of Node, without the buffer it shares.
   * @internal
   * @returns {object}
   */
  [Symbol.for('nodejs.util.inspect.custom')]() {
    const { kind, sender, topic, realtime, missed, payload } = this;
    return { kind, sender, topic, realtime, missed, payload };
  }
}
