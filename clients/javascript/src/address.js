/**
 * The address of a broker as text. Never connects.
 * @module
 */

import { ElbusError, invalidArgument, quoted } from './errors.js';

/**
 * `text` is for people: a secret of the address is not part of it.
 * @typedef {{ kind: 'unix', path: string, text: string }
 *   | { kind: 'tcp' | 'tls', host: string, port: number, text: string }
 *   | { kind: 'websocket', url: string, text: string }} Address
 */

/**
 * Parses an address, by the first match: `ws://` or `wss://` is a WebSocket; `tls://host:port` TCP under TLS;
 * a path that starts with `/`, ends in `.sock`, `.socket` or `.ipc`, or follows `unix:` is a UNIX socket;
 * anything else is `host:port` of TCP, with or without `tcp:`. White space around the address is ignored.
 * @param {unknown} address
 * @returns {Address}
 */
export function parseAddress(address) {
  if (address instanceof URL) return parseAddress(address.href);
  if (typeof address !== 'string')
    throw invalidArgument('the address', address, 'a string, for example "/run/elbus.sock"');
  const text = address.trim();
  if (/^wss?:/i.test(text)) return webSocket(text);
  const tls = /^tls:(?:\/\/)?(.*)$/s.exec(text);
  if (tls) return network('tls', tls[1], text);
  // as in URLs: the two slashes have no meaning of their own
  const plain = text.replace(/^(tcp|unix):\/\//, '$1:');
  const unix = /^unix:(.*)$/s.exec(plain);
  if (unix || plain.startsWith('/') || /\.(sock|socket|ipc)$/.test(plain)) {
    const path = unix ? unix[1] : plain;
    if (path === '' || path.startsWith('@') || path.includes('\0')) throw badAddress(address);
    return { kind: 'unix', path, text };
  }
  return network('tcp', plain.replace(/^tcp:/, ''), text);
}

/**
 * @param {'tcp' | 'tls'} kind
 * @param {string} rest
 * @param {string} text
 * @returns {Address}
 */
function network(kind, rest, text) {
  const parts = /^(\[[0-9a-fA-F:.%a-z]+\]|[^:/@\s\0]+):([0-9]{1,5})$/.exec(rest);
  const port = Number(parts?.[2]);
  if (!parts || port > 65535) throw badAddress(text);
  return { kind, host: parts[1].replace(/^\[|\]$/g, ''), port, text };
}

/**
 * @param {string} text
 * @returns {Address}
 */
function webSocket(text) {
  /** @type {URL} */
  let url;
  try {
    url = new URL(text);
  } catch {
    throw badAddress(text.replace(/\?.*/s, '?..'));
  }
  url.hash = ''; // a WebSocket accepts none
  const { href } = url;
  // the query can contain a token, which is not for errors and logs
  url.search = '';
  url.username = '';
  url.password = '';
  return { kind: 'websocket', url: href, text: url.href };
}

/**
 * @param {string} text
 * @returns {ElbusError}
 */
function badAddress(text) {
  const expected = 'the path of a UNIX socket, host:port, tls://host:port, or ws:// or wss:// with a host';
  return new ElbusError(
    'bad-address',
    `${quoted(text)} is not the address of a broker: expected ${expected}`,
  );
}
