#!/usr/bin/env node
// What it costs to be watched: `run.mjs throughput` compares the throughput of a broker with that of one
// whose metrics are scraped each second while a page shows its overview; `run.mjs scrape` times scrapes with
// 10,000 clients.
//
// Needs release builds of elbusd, elbus-load, libelbus_metrics.so and libelbus_web.so in one folder: BUILT,
// by default ../../target/release. ROUNDS (9) and SECONDS (3) are those of the comparison; further arguments
// are those of elbus-load. With MAP=1, the page shows the map as well, for which the traffic is sampled.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { connect } from '../../clients/javascript/src/index.js';

const built = process.env.BUILT ?? new URL('../../target/release', import.meta.url).pathname;
const [mode = 'throughput', ...load] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'elbus-watched-'));
const limit = 'ulimit -n "$(ulimit -Hn)"; exec "$0" "$@"';

/** Sleeps for a time in milliseconds. */
const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));
const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** Starts a broker, with the plugins metrics and web or without. */
async function startBroker(isWatched, cacheSeconds) {
  const socket = join(folder, 'bus.sock');
  const file = join(folder, 'broker.toml');
  const more = `
[[plugin]]
name = "metrics"
library = "elbus_metrics"
config = { bind = "127.0.0.1:0", cache_seconds = ${cacheSeconds} }
[[plugin]]
name = "web"
library = "elbus_web"
config = { bind = "127.0.0.1:0" }
`;
  writeFileSync(
    file,
    `[broker]
plugin_dirs = ["${built}"]
[[plugin]]
name = "local"
builtin = "unix"
config = { path = "${socket}" }
[[plugin]]
name = "rpc"
builtin = "rpc"
${isWatched ? more : ''}`,
  );
  const child = spawn('bash', ['-c', limit, join(built, 'elbusd'), '--config', file]);
  // also if something fails
  const end = () => child.kill();
  process.once('exit', end);
  let output = '';
  await new Promise((resolve, reject) => {
    const collect = (data) => {
      output += data;
      if (/^ {2}plugin /m.test(output) && (!isWatched || output.includes('/metrics'))) resolve();
    };
    child.stdout.on('data', collect);
    child.stderr.on('data', collect);
    child.once('exit', () => reject(new Error(output)));
  });
  const stop = async () => {
    process.off('exit', end);
    child.removeAllListeners('exit');
    child.kill();
    await once(child, 'exit');
  };
  const [, metrics] = /listening on (http:\S+\/metrics)/.exec(output) ?? [];
  return { socket, metrics, stop, pid: String(child.pid) };
}

/** Does what an open page does on its overview. Returns a function that ends it. */
async function openPage(broker) {
  // over the UNIX socket: Node 20 has no WebSocket
  const client = await connect(broker.socket, 'web.page.bench');
  let after = 0;
  const history = async () => {
    const { newest } = await client.call('.broker', 'web.history', { after });
    after = newest;
  };
  const top = () => Promise.all([client.call('.broker', 'web.top', {}), client.call('.broker', 'health')]);
  await history();
  const timers = [setInterval(history, 2000), setInterval(top, 3000)];
  if (process.env.MAP) {
    await client.call('.broker', 'web.map', {});
    timers.push(setInterval(() => client.call('.broker', 'web.map', {}), 3000));
  }
  return async () => {
    timers.forEach(clearInterval);
    await client.close();
  };
}

/** Runs elbus-load; returns its figures. */
async function measure(socket, ...parameters) {
  const child = spawn('bash', ['-c', limit, join(built, 'elbus-load'), socket, '--json', ...parameters]);
  let output = '';
  child.stdout.on('data', (data) => (output += data));
  child.stderr.on('data', (data) => process.stderr.write(data));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`elbus-load has ended with ${code}`);
  return JSON.parse(output);
}

async function throughput() {
  const rounds = Number(process.env.ROUNDS ?? 9);
  const seconds = process.env.SECONDS ?? '3';
  const rates = { plain: [], watched: [] };
  const nanos = { plain: [], watched: [] };
  for (let round = 0; round < rounds; round += 1) {
    for (const kind of round % 2 === 0 ? ['plain', 'watched'] : ['watched', 'plain']) {
      const broker = await startBroker(kind === 'watched', 0.5);
      const ends = [];
      if (kind === 'watched') {
        ends.push(await openPage(broker));
        const timer = setInterval(() => fetch(broker.metrics).then((answer) => answer.text()), 1000);
        ends.push(() => clearInterval(timer));
      }
      const figures = await measure(broker.socket, '--pid', broker.pid, '--seconds', seconds, ...load);
      rates[kind].push(figures.messages_per_second);
      nanos[kind].push(figures.broker_cpu_ns_per_message);
      for (const end of ends) await end();
      await broker.stop();
    }
  }
  const compare = (values) => {
    const ratios = values.plain.map((plain, round) => values.watched[round] / plain);
    return `ratio ${median(ratios).toFixed(4)} (${ratios.map((ratio) => ratio.toFixed(3)).join(' ')})`;
  };
  const millions = (values) => (median(values) / 1e6).toFixed(2);
  console.log(`${rounds} rounds of ${seconds} s, plain and watched`);
  console.log(`${millions(rates.plain)} and ${millions(rates.watched)} M messages/s: ${compare(rates)}`);
  const [plain, watched] = [nanos.plain, nanos.watched].map((values) => median(values).toFixed(1));
  // less affected by other programs of the machine
  console.log(`${plain} and ${watched} ns of the broker's processor time per message: ${compare(nanos)}`);
}

async function scrape() {
  const broker = await startBroker(true, 0);
  const crowd = measure(broker.socket, '--scenario', 'idle', '--clients', '10000', '--seconds', '20');
  const names = async () =>
    (await (await fetch(broker.metrics)).text()).match(/elbus_clients\{[^}]*primary[^}]*\} (\d+)/);
  while (Number((await names())?.[1] ?? 0) < 10_000) await pause(200);
  await pause(1000);
  const times = [];
  for (let at = 0; at < 15; at += 1) {
    const start = performance.now();
    await (await fetch(broker.metrics)).text();
    times.push(performance.now() - start);
    await pause(300);
  }
  await crowd;
  await broker.stop();
  const sorted = times.map((time) => time.toFixed(1)).sort((a, b) => a - b);
  console.log(`scrape with 10,000 clients: median ${sorted[7]} ms (${sorted.join(' ')})`);
}

try {
  await (mode === 'scrape' ? scrape() : throughput());
} finally {
  rmSync(folder, { recursive: true });
}
