/**
 * The JavaScript client in the test of all clients together, in Node (`node peer.js ADDRESS NAME`) and in a browser
 * (`startPeer`). Has the methods that README.md lists.
 * @module
 */

import { connect } from '../javascript/src/index.js';

/**
 * Connects a peer. It answers calls when the promise resolves.
 * @param {string} address
 * @param {string} name
 * @param {string} [token] What a page proves itself with.
 */
export async function startPeer(address, name, token) {
  const client = await connect(address, name, token === undefined ? {} : { token });
  /** @type {string[]} */
  const taken = [];
  /** @type {Map<string, string>} */
  const seen = new Map();
  client.serve({
    double: (/** @type {number} */ value) => 2 * value,
    relay: (/** @type {{ target: string, value: number }} */ { target, value }) => client.call(target, 'double', value),
    publish: async (/** @type {{ count: number }} */ { count }) => {
      for (let job = 0; job < count; job += 1) await client.publish(`jobs/${job % 7}`, String(job));
      return count;
    },
    work: async (/** @type {{ group: string }} */ { group }) => {
      const jobs = await client.subscribe('jobs/#', { share: group });
      void (async () => {
        for await (const job of jobs) taken.push(job.text());
      })();
    },
    taken: () => taken,
    view: async () => {
      const values = await client.subscribe('jobs/#', { latest: true });
      void (async () => {
        for await (const value of values) seen.set(value.topic, value.text());
      })();
    },
    seen: () => Object.fromEntries(seen),
  });
  return client;
}

if (globalThis.process?.argv[1] !== undefined && import.meta.url.endsWith('/mixed/peer.js')) {
  const [address, name] = process.argv.slice(2);
  await startPeer(address, name);
  console.log('ready');
}
