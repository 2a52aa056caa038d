/**
 * Chooses the transport of an address. Transports are loaded when they are used, so that a browser loads no
 * part of Node.
 * @module
 */
export type Address = import('../address.js').Address;
export type Settings = import('../settings.js').Settings;
export type Transport = {
    /**
     * Starts delivering; called once.
     */
    start: (events: TransportEvents) => void;
    /**
     * Writes a chunk, which is not changed later. Returns
     * `false` if the socket is full: `drain` follows when it has room.
     */
    write: (chunk: Uint8Array) => boolean;
    /**
     * Whether pausing reaches the sender. If not, received bytes arrive anyway.
     */
    canPause: boolean;
    /**
     * Whether bytes are still received after `end`.
     */
    canHalfClose: boolean;
    /**
     * Stops reading.
     */
    pause: () => void;
    /**
     * Continues reading.
     */
    resume: () => void;
    /**
     * Closes the client's side once everything is written.
     */
    end: () => void;
    /**
     * Ends the connection at once; no event follows.
     */
    destroy: () => void;
};
export type TransportEvents = {
    /**
     * The receiver owns the chunk.
     */
    data: (chunk: Uint8Array) => void;
    drain: () => void;
    /**
     * The connection has ended: by the peer, or by an error.
     * Once.
     */
    end: (error: Error | undefined) => void;
};
export type Dial = (address: Address, settings: Settings, signal: AbortSignal) => Promise<Transport>;
/** @typedef {import('../address.js').Address} Address */
/** @typedef {import('../settings.js').Settings} Settings */
/**
 * What a connection does with its transport.
 * @typedef {object} Transport
 * @property {(events: TransportEvents) => void} start Starts delivering; called once.
 * @property {(chunk: Uint8Array) => boolean} write Writes a chunk, which is not changed later. Returns
 *   `false` if the socket is full: `drain` follows when it has room.
 * @property {boolean} canPause Whether pausing reaches the sender. If not, received bytes arrive anyway.
 * @property {boolean} canHalfClose Whether bytes are still received after `end`.
 * @property {() => void} pause Stops reading.
 * @property {() => void} resume Continues reading.
 * @property {() => void} end Closes the client's side once everything is written.
 * @property {() => void} destroy Ends the connection at once; no event follows.
 */
/**
 * @typedef {object} TransportEvents
 * @property {(chunk: Uint8Array) => void} data The receiver owns the chunk.
 * @property {() => void} drain
 * @property {(error: Error | undefined) => void} end The connection has ended: by the peer, or by an error.
 *   Once.
 */
/**
 * Connects to an address. An aborted signal ends the attempt.
 * @typedef {(address: Address, settings: Settings, signal: AbortSignal) => Promise<Transport>} Dial
 */
/** @type {Dial} */
export declare function dial(address: import("../address.js").Address, settings: import("../settings.js").Settings, signal: AbortSignal): Promise<Transport>;
