/**
 * Chooses the transport of an address. Transports are loaded when they are used, so that a browser loads no
 * part of Node.
 * @module
 */

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
export async function dial(address, settings, signal) {
  if (address.kind === 'websocket') {
    const { dialWebSocket } = await import('./websocket.js');
    return dialWebSocket(address, settings, signal);
  }
  const { dialSocket } = await import('./socket.js');
  return dialSocket(address, settings, signal);
}
