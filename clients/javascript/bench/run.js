/**
 * Measures this client, and the npm package `nats` beside it if `nats-server` is installed. Rounds are
 * interleaved; the medians are printed. ELBUSD is the path of a release build of the broker.
 * @module
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { Broker } from '../test/support/broker.js';

const ROUNDS = Number(process.env.ROUNDS ?? 5);
const SIZE = 100;
const load = fileURLToPath(new URL('load.js', import.meta.url));

/**
 * Starts a client. Returns its lines of output.
 * @param {(string | number)[]} parameters
 */
function client(...parameters) {
  const child = spawn(process.execPath, [load, ...parameters.map(String)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async line() {
      const { value, done } = await lines.next();
      if (done) throw new Error(`the client has ended: ${parameters.join(' ')}`);
      return value;
    },
    async rate() {
      return JSON.parse(await this.line()).rate;
    },
  };
}

/** @param {string} library @param {string} address @param {number} count */
async function oneWay(library, address, count) {
  const receiver = client(library, address, 'receiver', count, SIZE);
  await receiver.line();
  client(library, address, 'sender', count, SIZE);
  return receiver.rate();
}

/** @returns {Promise<number>} */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  server.close();
  await once(server, 'close');
  return port;
}

/** @param {number} port */
async function startNats(port) {
  const child = spawn('nats-server', ['-a', '127.0.0.1', '-p', String(port)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const found = await new Promise((resolve) => {
    child.once('error', () => resolve(false));
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (line.includes('Server is ready')) resolve(true);
    });
  });
  return found ? child : undefined;
}

const broker = new Broker(['--bind', '127.0.0.1:0']);
await broker.start();
const port = await freePort();
const nats = await startNats(port);
/** @type {[string, () => Promise<number>][]} */
const measurements = [
  ['ELBUS, UNIX: one way', () => oneWay('elbus', broker.path, 1_000_000)],
  ['ELBUS, TCP: one way', () => oneWay('elbus', broker.address('tcp'), 1_000_000)],
  [
    'ELBUS, UNIX: acknowledged, awaiting each',
    () => client('elbus', broker.path, 'awaiting', 30_000, SIZE).rate(),
  ],
  [
    'ELBUS, UNIX: acknowledged, 1,000 pipelined',
    () => client('elbus', broker.path, 'pipelined', 600_000, SIZE).rate(),
  ],
];
if (nats) {
  const address = `127.0.0.1:${port}`;
  measurements.push(
    ['nats, TCP: one way', () => oneWay('nats', address, 1_000_000)],
    ['nats, TCP: flushed, awaiting each', () => client('nats', address, 'awaiting', 20_000, SIZE).rate()],
    ['nats, TCP: flushed, 1,000 pipelined', () => client('nats', address, 'pipelined', 100_000, SIZE).rate()],
  );
} else {
  console.log('NOT MEASURED: nats, because nats-server is not installed');
}
/** @type {number[][]} */
const rates = measurements.map(() => []);
for (let round = 0; round < ROUNDS; round += 1) {
  for (const [index, [, measure]] of measurements.entries()) rates[index].push(await measure());
}
console.log(
  `Node ${process.versions.node}, payloads of ${SIZE} bytes, medians of ${ROUNDS} interleaved rounds`,
);
for (const [index, [title]] of measurements.entries()) {
  const sorted = rates[index].sort((a, b) => a - b);
  const values = [sorted[Math.floor(sorted.length / 2)], sorted[0], sorted[sorted.length - 1]];
  const [rate, low, high] = values.map((value) => Math.round(value).toLocaleString('en'));
  console.log(`${title.padEnd(44)} ${rate.padStart(10)} messages/s (${low} to ${high})`);
}
nats?.kill();
await broker.remove();
