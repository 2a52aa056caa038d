/**
 * Connects and registers: from an address to a registered connection. Sends nothing after the handshake.
 * @module
 */
import { ElbusError } from '../errors.js';
export type Transport = import('../transport/transport.js').Transport;
export type Registered = {
    transport: Transport;
    events: import('../transport/transport.js').TransportEvents;
    rest: Uint8Array;
};
/** @typedef {import('../transport/transport.js').Transport} Transport */
/**
 * A registered connection, and its events, which the new owner replaces at once. `rest` are the bytes that
 * the broker has sent after its answer.
 * @typedef {object} Registered
 * @property {Transport} transport
 * @property {import('../transport/transport.js').TransportEvents} events
 * @property {Uint8Array} rest
 */
/**
 * Refuses a name that cannot be sent. Other names are for the broker to refuse.
 * @param {string} name
 */
export declare function checkName(name: string): void;
/**
 * Starts connecting. Exactly one of `done` and `failed` is called, unless the attempt is cancelled. The
 * timeout covers connecting and registering.
 * @param {import('../address.js').Address} address
 * @param {string} name
 * @param {import('../settings.js').Settings} settings
 * @param {(registered: Registered) => void} done
 * @param {(error: ElbusError) => void} failed
 * @returns {() => void} Cancels the attempt.
 */
export declare function register(address: import('../address.js').Address, name: string, settings: import('../settings.js').Settings, done: (registered: Registered) => void, failed: (error: ElbusError) => void): () => void;
