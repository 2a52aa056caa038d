/**
 * Runs the cases with a real broker in any runtime: `run-cases.js ADDRESS`. Prints what has failed.
 * @module
 */

import process from 'node:process';

import { connect } from '../../src/index.js';
import { cases } from './cases.js';

const [address] = process.argv.slice(2);
let failed = 0;
for (const [index, [title, run]] of Object.entries(cases).entries()) {
  /** @type {import('../../src/index.js').Client[]} */
  const clients = [];
  try {
    await run({
      canPause: true,
      async connect(name, settings) {
        const client = await connect(
          address,
          name.startsWith('.') ? name : `runtime${index}.${name}`,
          settings,
        );
        clients.push(client);
        return client;
      },
    });
  } catch (error) {
    failed += 1;
    console.error(title, error);
  }
  await Promise.all(clients.map((client) => client.close()));
}
if (failed > 0) process.exit(1);
console.log(`${Object.keys(cases).length} cases pass`);
