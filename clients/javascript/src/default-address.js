/**
 * The address of the broker on this machine. Never connects.
 * @module
 */

import { ElbusError } from './errors.js';

/** Only root can create files in these folders. */
const MACHINE_SOCKETS = ['/run/elbus/bus.sock', '/run/elbus.sock'];
/** Any user can create this one. */
const SHARED_SOCKET = '/tmp/elbus.sock';

/**
 * Returns the first of these sockets that exists: `$XDG_RUNTIME_DIR/elbus.sock`, `/run/elbus/bus.sock`,
 * `/run/elbus.sock`, `/tmp/elbus.sock`; else the one that `elbusd` uses if this user starts it. Needs the
 * file system, as Node, Deno and Bun have it.
 *
 * ```js
 * const client = await connect(await defaultAddress(), 'plant.lamp');
 * ```
 * @returns {Promise<string>}
 * @throws {ElbusError} `bad-address`: the socket in `/tmp` belongs to another user, who could read what is
 *   sent; or the runtime has no file system.
 */
export async function defaultAddress() {
  const [{ stat }, process] = await Promise.all([import('node:fs/promises'), import('node:process')]).catch(
    (cause) => {
      const text =
        'this runtime has no file system to find a broker in: give the address, for example ws://host:port';
      throw new ElbusError('bad-address', text, { cause });
    },
  );
  const folder = process.env.XDG_RUNTIME_DIR;
  const own = folder === undefined || folder === '' ? [] : [`${folder}/elbus.sock`];
  const user = process.geteuid?.() ?? -1;
  for (const path of [...own, ...MACHINE_SOCKETS, SHARED_SOCKET]) {
    const found = await stat(path).catch(() => undefined);
    if (!found?.isSocket()) continue;
    if (path === SHARED_SOCKET && found.uid !== 0 && found.uid !== user) {
      const remedy = 'if that is intended, give the address explicitly';
      const who = `user ${found.uid}, who is neither root nor the user of this program`;
      throw new ElbusError('bad-address', `${path} is served by ${who}; ${remedy}`);
    }
    return path;
  }
  return own[0] ?? (user === 0 ? MACHINE_SOCKETS[1] : SHARED_SOCKET);
}
