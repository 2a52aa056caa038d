/**
 * UNIX sockets, TCP and TLS, by `node:net` and `node:tls` of Node, Deno and Bun. Never handles bytes of the
 * protocol.
 * @module
 */
export type Transport = import('./transport.js').Transport;
export type TransportEvents = import('./transport.js').TransportEvents;
export type Address = import('../address.js').Address;
export type SocketAddress = Extract<Address, {
    kind: 'unix' | 'tcp' | 'tls';
}>;
/** @typedef {import('./transport.js').Transport} Transport */
/** @typedef {import('./transport.js').TransportEvents} TransportEvents */
/** @typedef {import('../address.js').Address} Address */
/** @typedef {Extract<Address, { kind: 'unix' | 'tcp' | 'tls' }>} SocketAddress */
/**
 * @param {SocketAddress} address
 * @param {import('../settings.js').Settings} settings
 * @param {AbortSignal} signal
 * @returns {Promise<Transport>}
 */
export declare function dialSocket(address: SocketAddress, settings: import('../settings.js').Settings, signal: AbortSignal): Promise<Transport>;
