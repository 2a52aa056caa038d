/**
 * WebSockets (protocol section 11): the byte stream in binary messages whose boundaries have no meaning. Uses
 * `WebSocketStream` where the runtime has it, because a plain `WebSocket` cannot be paused.
 * @module
 */
export type Transport = import('./transport.js').Transport;
export type TransportEvents = import('./transport.js').TransportEvents;
export type WebSocketAddress = Extract<import('../address.js').Address, {
    kind: 'websocket';
}>;
/** @typedef {import('./transport.js').Transport} Transport */
/** @typedef {import('./transport.js').TransportEvents} TransportEvents */
/** @typedef {Extract<import('../address.js').Address, { kind: 'websocket' }>} WebSocketAddress */
/**
 * @param {WebSocketAddress} address
 * @param {import('../settings.js').Settings} settings
 * @param {AbortSignal} signal
 * @returns {Promise<Transport>}
 */
export declare function dialWebSocket(address: WebSocketAddress, settings: import('../settings.js').Settings, signal: AbortSignal): Promise<Transport>;
