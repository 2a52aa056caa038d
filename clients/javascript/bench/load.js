/**
 * One client of a measurement, in a process of its own: sends or receives, and prints the rate.
 * @module
 */

import { connectTo } from './libraries.js';

const [library, address, role, countText, sizeText] = process.argv.slice(2);
const count = Number(countText);
const payload = new Uint8Array(Number(sizeText)).fill(120);

/** @param {number} start @param {number} messages */
function report(start, messages) {
  const seconds = (performance.now() - start) / 1000;
  process.stdout.write(`${JSON.stringify({ seconds, rate: messages / seconds })}\n`);
}

const client = await connectTo(library, address, role);
if (role === 'receiver') {
  const next = await client.receive('bench/topic');
  process.stdout.write('ready\n');
  await next();
  const start = performance.now();
  for (let received = 1; received < count; received += 1) await next();
  report(start, count - 1);
} else if (role === 'sender') {
  const start = performance.now();
  await client.sendAll('bench/topic', payload, count);
  report(start, count);
} else if (role === 'awaiting' || role === 'pipelined') {
  const send = client.acknowledged('bench/topic', payload);
  await send();
  const start = performance.now();
  if (role === 'awaiting') {
    for (let sent = 0; sent < count; sent += 1) await send();
  } else {
    const window = 1000;
    for (let sent = 0; sent < count; sent += window) {
      const operations = [];
      for (let index = 0; index < window; index += 1) operations.push(send());
      await Promise.all(operations);
    }
  }
  report(start, count);
} else {
  throw new Error(`unknown role ${role}`);
}
await client.close();
