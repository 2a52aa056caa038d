/**
 * Parses what the broker sends after the handshake (protocol section 4). Owns the beginning of an incomplete
 * frame; does not decide which consumer gets a frame.
 *
 * Frames that are complete within a received chunk share its memory. An incomplete one is gathered in memory
 * that grows with what has arrived, not with the length that it claims.
 * @module
 */
import { Frame } from '../frame.js';
/**
 * An invalid frame. `fault` is the kind of the fault as in the conformance cases.
 */
export declare class FrameFault extends Error {
    fault: "missing-nul" | "not-utf8" | "too-long" | "unknown-kind";
    field: "sender" | "topic" | undefined;
    /**
     * @param {'too-long' | 'unknown-kind' | 'missing-nul' | 'not-utf8'} fault
     * @param {string} message
     * @param {'sender' | 'topic'} [field]
     */
    constructor(fault: 'too-long' | 'unknown-kind' | 'missing-nul' | 'not-utf8', message: string, field?: 'sender' | 'topic');
}
export type DeliveryReceiver = {
    ack: (opId: number, code: number) => void;
    frame: (frame: Frame) => void;
};
/**
 * Receives what was parsed, in order.
 * @typedef {object} DeliveryReceiver
 * @property {(opId: number, code: number) => void} ack
 * @property {(frame: Frame) => void} frame
 */
export declare class DeliveryParser {
    #private;
    /**
     * `limit` is that of a body, in bytes.
     * @param {number} limit
     * @param {DeliveryReceiver} receiver
     */
    constructor(limit: number, receiver: DeliveryReceiver);
    /**
     * Returns the limit of a delivered body for a limit of payloads.
     * @param {number} maxFrameBytes
     * @returns {number}
     */
    static bodyLimit(maxFrameBytes: number): number;
    /**
     * The bytes of an incomplete frame that have arrived.
     * @returns {number}
     */
    get pendingBytes(): number;
    /**
     * Parses a chunk, whose memory the parser and its frames own from now on.
     * @param {Uint8Array} chunk
     * @throws {FrameFault} Frames before the invalid one have been handed to the receiver.
     */
    push(chunk: Uint8Array): void;
}
