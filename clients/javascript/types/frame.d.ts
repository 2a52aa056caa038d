/**
 * A received frame. Owns the position of its payload; never knows its consumer.
 * @module
 */
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
export declare class Frame {
    #private;
    /**
     * What the sender has sent.
     * @readonly
     */
    kind: "broadcast" | "message" | "publish";
    /**
     * Whether the frame was sent as real-time.
     * @readonly
     */
    realtime: boolean;
    /**
     * The full name of the sender, including the suffix of a secondary client.
     * @readonly
     */
    sender: string;
    /**
     * The topic of a publication, which can be empty. For other frames it is empty.
     * @readonly
     */
    topic: string;
    /**
     * How many frames were dropped directly before this one, because its consumer was slow; see `overflow`.
     * @type {number}
     */
    missed: number;
    /**
     * The payload. It shares memory with frames that arrived together.
     * @returns {Uint8Array}
     */
    get payload(): Uint8Array;
    /**
     * The name of the sender without the suffix of a secondary client.
     * @returns {string}
     */
    get primarySender(): string;
    /**
     * Returns the payload as text. What is not UTF-8 becomes U+FFFD.
     * @returns {string}
     */
    text(): string;
    /**
     * Returns the payload as a value of JSON.
     * @returns {any}
     * @throws {SyntaxError} The payload is not JSON.
     */
    json(): any;
    /**
     * Returns the payload as a value of msgpack.
     * @returns {any}
     * @throws {import('./errors.js').ElbusError} `conversion`: the payload is not one value of msgpack.
     */
    msgpack(): any;
}
