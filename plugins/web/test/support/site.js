// A broker with the plugin web.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { Broker, brokerPath } from '../../../../clients/javascript/test/support/broker.js';

/**
 * @typedef {object} Site
 * @property {Broker} broker
 * @property {string} url The address of the page, with the token.
 * @property {string} origin
 * @property {() => Promise<void>} close
 */

/**
 * Starts a broker that serves the page.
 * @param {{ settings?: string, plugins?: string, page?: string, hasTokens?: boolean }} [more] Lines for
 *   `[broker]`, further plugins, and lines for the plugin web; whether it has a file of tokens instead of the
 *   token of its start, with which a page administers.
 * @returns {Promise<Site>}
 */
export async function startSite({ settings = '', plugins = '', page = '', hasTokens = false } = {}) {
  const folder = dirname(brokerPath());
  if (!existsSync(join(folder, 'libelbus_web.so')))
    throw new Error(`no libelbus_web.so in ${folder}: build it (cargo build -p elbus-web)`);
  const tokens = mkdtempSync(join(tmpdir(), 'elbus-tokens-'));
  const file = join(tokens, 'tokens');
  const made = hasTokens ? makeToken(file) : '';
  const web = `
[[plugin]]
name = "web"
library = "elbus_web"
[plugin.config]
bind = "127.0.0.1:0"
${page}
${hasTokens ? `tokens_file = ${JSON.stringify(file)}` : ''}
`;
  const broker = await startBroker(settings, web + plugins);
  const origin = `http:${broker.address('http')}`.replace(/\/$/, '');
  return {
    broker,
    origin,
    // where there are access rules, no token is needed
    url: plugins.includes('"acl"') ? origin : `${origin}/#token=${made || (await broker.token())}`,
    close: async () => {
      await broker.remove();
      rmSync(tokens, { recursive: true });
    },
  };
}

/**
 * Writes a file of tokens. Returns the token.
 * @param {string} file
 */
function makeToken(file) {
  const { stdout, stderr } = spawnSync(brokerPath(), ['--make-token', 'reader'], { encoding: 'utf8' });
  const [token] = /elbus_[\w-]{43}/.exec(stderr) ?? [];
  if (token === undefined) throw new Error(`no token: ${stderr}`);
  writeFileSync(file, stdout, { mode: 0o600 });
  return token;
}

/**
 * Starts a broker with clients over UNIX sockets, calls and announcements, and other plugins.
 * @param {string} settings
 * @param {string} plugins
 */
export async function startBroker(settings, plugins) {
  const broker = new Broker();
  const file = join(broker.folder, 'broker.toml');
  writeFileSync(
    file,
    `
[broker]
name = "plant"
${settings}

[[plugin]]
name = "local"
builtin = "unix"
[plugin.config]
path = "${broker.path}"
timeout_seconds = 60.0
max_pending = 4096

[[plugin]]
name = "rpc"
builtin = "rpc"

[[plugin]]
name = "announce"
builtin = "announce"
${plugins}`,
  );
  broker.configure(file);
  await broker.start();
  return broker;
}
