/**
 * A real broker for tests: `elbusd` in a folder of its own.
 * @module
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const target = fileURLToPath(new URL('../../../../target', import.meta.url));

/**
 * Returns the broker to be tested: that of the variable ELBUSD, else one that was built in this folder.
 * @returns {string}
 */
export function brokerPath() {
  const candidates = [process.env.ELBUSD, join(target, 'release/elbusd'), join(target, 'debug/elbusd')];
  const found = candidates.find((path) => path !== undefined && existsSync(path));
  if (found === undefined)
    throw new Error('no elbusd: build it (cargo build -p elbusd), or set ELBUSD to its path');
  return found;
}

export class Broker {
  #folder = mkdtempSync(join(tmpdir(), 'elbus-js-'));
  /** @type {import('node:child_process').ChildProcess | undefined} */
  #process;
  #arguments;
  #keys;
  #output = '';

  /** The path of its UNIX socket. */
  path = join(this.#folder, 'bus.sock');

  /**
   * @param {string[]} [more] Further arguments.
   * @param {string} [keys] Of the plugin `unix`, as behind a path.
   */
  constructor(more = [], keys = '') {
    this.#arguments = more;
    this.#keys = keys;
  }

  /**
   * Returns the token that the broker logs, for WebSockets without a file of tokens. The log has a pipe of
   * its own, so it can arrive later than what the broker prints.
   */
  async token() {
    const deadline = performance.now() + 10_000;
    for (;;) {
      const [, token] = /[?#]token=([^" ]+)/.exec(this.#output) ?? [];
      if (token !== undefined) return token;
      if (performance.now() > deadline) throw new Error(`no token in: ${this.#output}`);
      await new Promise((resolve) => {
        setTimeout(resolve, 5);
      });
    }
  }

  /**
   * Makes the broker use a configuration file.
   * @param {string} file
   */
  configure(file) {
    this.#arguments = ['--config', file];
  }

  /**
   * Returns all addresses that the broker has printed, in order.
   * @param {string} transport
   */
  addresses(transport) {
    const lines = this.#output.matchAll(new RegExp(`listening on ${transport}:(\\S+)`, 'g'));
    return [...lines].map(([, address]) => address);
  }

  /** The folder of the broker, for files of a test. */
  get folder() {
    return this.#folder;
  }

  /**
   * Starts a broker that ends with the test.
   * @param {{ after: (callback: () => unknown) => void }} context
   * @param {string[]} [more]
   * @param {string} [keys]
   */
  static async start(context, more = [], keys = '') {
    const broker = new Broker(more, keys);
    context.after(() => broker.remove());
    await broker.start();
    return broker;
  }

  /** Starts the broker. Returns when it accepts connections. */
  async start() {
    const given = this.#arguments;
    const parameters =
      given[0] === '--config' ? given : ['--plugins', 'builtin', '--bind', this.path + this.#keys, ...given];
    const child = spawn(brokerPath(), parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    this.#output = '';
    await new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
      const collect = (/** @type {Buffer} */ data) => {
        this.#output += data;
        if (/^ {2}plugin /m.test(this.#output)) resolve();
      };
      child.stdout?.on('data', collect);
      child.stderr?.on('data', collect);
      child.once('error', reject);
      child.once('exit', (code) => reject(new Error(`elbusd has ended with ${code}: ${this.#output}`)));
    });
  }

  /**
   * Returns the address that the broker has printed for a transport, for example `tcp`.
   * @param {string} transport
   */
  address(transport) {
    const found = new RegExp(`listening on ${transport}:(\\S+)`).exec(this.#output);
    if (!found) throw new Error(`no address of ${transport} in: ${this.#output}`);
    return found[1];
  }

  /** Ends the broker at once, as a crash does. */
  async kill() {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  /** Stops the broker from running. Returns when all of its threads have stopped. */
  async suspend() {
    const pid = this.#process?.pid;
    this.#process?.kill('SIGSTOP');
    const state = (/** @type {string} */ thread) => {
      return readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8').replace(/.*\) /s, '')[0];
    };
    while (readdirSync(`/proc/${pid}/task`).some((thread) => state(thread) !== 'T')) {
      await new Promise((resolve) => {
        setTimeout(resolve, 1);
      });
    }
  }

  /** Returns the resident memory of the broker without that of files, in bytes. */
  memory() {
    const status = readFileSync(`/proc/${this.#process?.pid}/status`, 'utf8');
    return Number(/RssAnon:\s*(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  /** Lets the broker run again. */
  resume() {
    this.#process?.kill('SIGCONT');
  }

  async remove() {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
