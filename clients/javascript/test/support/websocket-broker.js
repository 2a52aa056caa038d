/**
 * A broker that pages can connect to.
 * @module
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Broker } from './broker.js';

/**
 * Starts a broker with the plugin `websocket`, which serves pages of `origin`.
 * @param {string} origin
 */
export async function startWebSocketBroker(origin) {
  const broker = new Broker();
  const file = join(broker.folder, 'broker.toml');
  writeFileSync(
    file,
    `
[[plugin]]
name = "local"
builtin = "unix"
[plugin.config]
path = "${broker.path}"

[[plugin]]
name = "rpc"
builtin = "rpc"

[[plugin]]
name = "announce"
builtin = "announce"

[[plugin]]
name = "web"
builtin = "websocket"
[plugin.config]
bind = "127.0.0.1:0"
allowed_origins = ["${origin}"]
`,
  );
  broker.configure(file);
  try {
    await broker.start();
    return { broker, address: `ws:${broker.address('ws')}`, token: await broker.token() };
  } catch (error) {
    await broker.remove(); // a process that is left would keep the test from ending
    throw error;
  }
}
