/**
 * A WebSocket server that passes bytes to a UNIX socket and back, as the plugin `websocket` does. Messages
 * are cut at random places, because their boundaries have no meaning.
 * @module
 */

import { once } from 'node:events';
import net from 'node:net';

import { WebSocketServer } from 'ws';

/**
 * Starts a bridge. Returns its address and a function that stops it.
 * @param {string} path
 */
export async function startBridge(path) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  server.on('connection', (socket) => {
    const broker = net.connect(path);
    socket.on('message', (data) => broker.write(/** @type {Buffer} */ (data)));
    socket.on('close', () => broker.end());
    broker.on('error', () => socket.terminate());
    broker.on('close', () => socket.close());
    broker.on('data', (data) => {
      const cut = Math.floor(Math.random() * data.length);
      for (const part of [data.subarray(0, cut), data.subarray(cut)]) {
        socket.send(part, () => {
          if (socket.bufferedAmount === 0) broker.resume();
        });
      }
      if (socket.bufferedAmount > 1_000_000) broker.pause();
    });
  });
  const { port } = /** @type {net.AddressInfo} */ (server.address());
  return {
    address: `ws://127.0.0.1:${port}/`,
    async stop() {
      for (const client of server.clients) client.terminate();
      server.close();
      await once(server, 'close');
    },
  };
}
