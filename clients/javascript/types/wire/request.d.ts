/**
 * Encodes what a client sends after the handshake (protocol section 3). Never decides when it is sent.
 * @module
 */
/** The longest body, in bytes. */
export declare const MAX_BODY_BYTES = 4294967295;
/** A ping: nine bytes without body or acknowledgement. */
export declare const PING: Uint8Array<ArrayBuffer>;
/**
 * Returns how many bytes {@link encodeRequest} can need.
 * @param {string} target
 * @param {string} receiver
 * @param {Uint8Array} head
 * @param {string | Uint8Array} payload
 * @returns {number}
 */
export declare function requestBound(target: string, receiver: string, head: Uint8Array, payload: string | Uint8Array): number;
/**
 * Encodes a frame with target and payload; with a receiver if the operation is PUBLISH_FOR. The caller has
 * checked the texts and reserved {@link requestBound} bytes. Returns the position behind the frame.
 * @param {Uint8Array} bytes
 * @param {number} from
 * @param {number} opId
 * @param {number} flags
 * @param {string} target
 * @param {string | undefined} receiver
 * @param {Uint8Array} head
 * @param {string | Uint8Array} payload
 * @returns {number}
 */
export declare function encodeRequest(bytes: Uint8Array, from: number, opId: number, flags: number, target: string, receiver: string | undefined, head: Uint8Array, payload: string | Uint8Array): number;
/**
 * Encodes a topic operation, which requests an acknowledgement.
 * @param {number} opId
 * @param {number} op
 * @param {readonly string[]} filters At least one.
 * @returns {Uint8Array}
 */
export declare function encodeFilters(opId: number, op: number, filters: readonly string[]): Uint8Array;
/**
 * Returns the length of a payload in bytes.
 * @param {string | Uint8Array} payload
 * @returns {number}
 */
export declare function payloadBytes(payload: string | Uint8Array): number;
