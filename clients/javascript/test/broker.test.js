/**
 * The cases with a real broker, over a UNIX socket, TCP and WebSocket, the last also with messages that are
 * cut at random places.
 * @module
 */

import test from 'node:test';

import { WebSocket } from 'ws';

import { connect } from '../src/index.js';
import { startBridge } from './support/bridge.js';
import { Broker } from './support/broker.js';
import { cases } from './support/cases.js';
import { startWebSocketBroker } from './support/websocket-broker.js';

const broker = new Broker(['--bind', '127.0.0.1:0']);
/** @type {Awaited<ReturnType<typeof startBridge>>} */
let bridge;
/** @type {Awaited<ReturnType<typeof startWebSocketBroker>>} */
let web;
test.before(async () => {
  await broker.start();
  bridge = await startBridge(broker.path);
  web = await startWebSocketBroker('http://127.0.0.1');
});
test.after(async () => {
  await bridge?.stop();
  await web?.broker.remove();
  await broker.remove();
});

for (const transport of ['unix', 'tcp', 'ws', 'cut']) {
  for (const [title, run] of Object.entries(cases)) {
    test(`${title} (${transport})`, { timeout: 30_000 }, async (context) => {
      /** @type {Record<string, [string, import('../src/index.js').ClientSettings]>} */
      const transports = {
        unix: [broker.path, {}],
        tcp: [broker.address('tcp'), {}],
        ws: [web.address, { WebSocket, token: web.token }],
        cut: [bridge.address, { WebSocket }],
      };
      const [address, own] = transports[transport];
      /** @type {import('../src/index.js').Client[]} */
      const clients = [];
      context.after(() => Promise.all(clients.map((client) => client.close())));
      const prefix = `${transport}${Object.keys(cases).indexOf(title)}`;
      await run({
        canPause: own.WebSocket === undefined,
        async connect(name, settings) {
          const unique = name.startsWith('.') ? name : `${prefix}.${name}`;
          const client = await connect(address, unique, { ...own, ...settings });
          clients.push(client);
          return client;
        },
      });
    });
  }
}
