// The page with invented answers of the methods of the plugin web: what a page must survive, and pictures of
// a busy plant. The files and the policy are those of the plugin; the WebSocket is that of the plugin
// websocket.

import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect as connectSocket } from 'node:net';
import { extname } from 'node:path';

import { startBroker } from './site.js';

const root = new URL('../../../../', import.meta.url);
/** @type {[RegExp, string][]} */
const PLACES = [
  [/^\/page\//, 'plugins/web/page/'],
  [/^\/elbus\//, 'clients/javascript/src/'],
  [/^\/config\//, 'config/'],
];
const TYPES = /** @type {Record<string, string>} */ ({
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
});
const PANEL = `
[[plugin]]
name = "panel"
builtin = "websocket"
[plugin.config]
bind = "127.0.0.1:0"
path = "/bus"
`;

/**
 * Starts a broker and serves the page. The methods of the plugin web are those of the client `test.web`.
 * @param {{ settings?: string }} [more] Lines for `[broker]`.
 * @returns {Promise<import('./site.js').Site>}
 */
export async function startInventedSite({ settings = '' } = {}) {
  const broker = await startBroker(settings, PANEL);
  const { port: brokerPort } = new URL(`http:${broker.address('ws')}`);
  const server = createServer((request, response) => {
    const path = String(request.url).split('?')[0].replace(/^\/$/, '/page/index.html');
    const body = contentOf(path);
    if (body === undefined) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      'content-type': TYPES[extname(path)] ?? 'text/plain; charset=utf-8',
      'content-security-policy': policy(),
      'x-content-type-options': 'nosniff',
    });
    response.end(body);
  });
  server.on('upgrade', (request, socket) => {
    const lines = [`GET /bus HTTP/1.1`];
    for (let at = 0; at < request.rawHeaders.length; at += 2)
      lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`);
    const upstream = connectSocket(Number(brokerPort), '127.0.0.1');
    upstream.write(`${lines.join('\r\n')}\r\n\r\n`);
    socket.pipe(upstream).pipe(socket);
    upstream.on('error', () => socket.destroy());
    upstream.on('close', () => socket.destroy());
    socket.on('error', () => upstream.destroy());
    socket.on('close', () => upstream.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  const origin = `http://127.0.0.1:${port}`;
  return {
    broker,
    origin,
    url: `${origin}/#token=${await broker.token()}`,
    async close() {
      server.close();
      server.closeAllConnections();
      await broker.remove();
    },
  };
}

/** Returns the policy that the plugin sends. */
function policy() {
  const source = readFileSync(new URL('plugins/web/src/page.rs', root), 'utf8');
  const text = /CONTENT_SECURITY_POLICY: &str = "(.*?)";/s.exec(source)?.[1];
  if (text === undefined) throw new Error('page.rs has no CONTENT_SECURITY_POLICY');
  return text.replaceAll(/\\\n\s*/g, '');
}

/** @param {string} path */
function contentOf(path) {
  const [pattern, place] = PLACES.find(([prefix]) => prefix.test(path)) ?? [];
  if (pattern === undefined || path.includes('..')) return undefined;
  const file = new URL(path.replace(pattern, String(place)), root);
  if (!existsSync(file) || !statSync(file).isFile()) return undefined;
  const content = readFileSync(file);
  if (path !== '/page/bus/bus.js') return content;
  return content.toString().replace("export const WEB = '.broker';", "export const WEB = 'test.web';");
}
