/**
 * The address of the broker on this machine. Never connects.
 * @module
 */
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
export declare function defaultAddress(): Promise<string>;
