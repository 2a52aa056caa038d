/**
 * The cases with a real broker in headless Chromium, over WebSocket, with `WebSocketStream` and with plain
 * `WebSocket`. And the page of docs/javascript.md.
 * @module
 */

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { extname } from 'node:path';
import test from 'node:test';

import { chromium } from 'playwright-core';

import { connect } from '../src/index.js';
import { cases } from './support/cases.js';
import { startWebSocketBroker } from './support/websocket-broker.js';

const executablePath = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(
  (path) => path !== undefined && existsSync(path),
);
const root = new URL('..', import.meta.url);
const types = /** @type {Record<string, string>} */ ({ '.js': 'text/javascript', '.html': 'text/html' });
/** Pages of tests by path. @type {Map<string, string>} */
const pages = new Map([['/empty.html', '<!doctype html><title>test</title>']]);

const server = createServer((request, response) => {
  const path = String(request.url).split('?')[0];
  const page = pages.get(path);
  const file = new URL(`.${path.replace(/^\/elbus\//, '/src/')}`, root);
  if (page === undefined && (!/^\/(src|test|elbus)\//.test(path) || !existsSync(file))) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': types[extname(path)] ?? 'application/octet-stream' });
  response.end(page ?? readFileSync(file));
});

/** @type {Awaited<ReturnType<typeof startWebSocketBroker>>} */
let web;
/** @type {import('playwright-core').Browser} */
let browser;
let origin = '';

const skip =
  executablePath === undefined && 'NOT TESTED: no Chromium; install the package chromium, or set CHROMIUM';
if (skip) console.log(skip);

test('headless Chromium', { skip, timeout: 300_000 }, async (context) => {
  context.after(async () => {
    await browser?.close();
    await web?.broker.remove();
    server.close();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  origin = `http://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (server.address()).port}`;
  web = await startWebSocketBroker(origin);
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--js-flags=--expose-gc'] });

  for (const kind of ['WebSocketStream', 'WebSocket']) {
    const page = await browser.newPage();
    /** @type {string[]} */
    const failures = [];
    page.on('pageerror', (error) => failures.push(String(error)));
    await page.goto(`${origin}/empty.html`);
    for (const [index, title] of Object.keys(cases).entries()) {
      await context.test(`${title} (${kind})`, { timeout: 30_000 }, async () => {
        const failure = await page.evaluate(runCase, {
          title,
          kind,
          index,
          address: web.address,
          token: web.token,
        });
        assert.equal(failure, undefined);
        assert.deepEqual(failures, []);
      });
    }
    await page.close();
  }

  await context.test('the page of docs/javascript.md', { timeout: 30_000 }, async () => {
    const text = readFileSync(new URL('../../docs/javascript.md', root), 'utf8');
    const html = /```html\n(.*?)```/s.exec(text)?.[1];
    assert.ok(html !== undefined && html.includes('ws://127.0.0.1:8080/'));
    pages.set('/page.html', html.replace('ws://127.0.0.1:8080/', web.address));
    const page = await browser.newPage();
    await page.goto(`${origin}/page.html#${web.token}`);
    const sensor = await connect(web.broker.path, 'sensor');
    for (;;) {
      const { options } = await sensor.call('.broker', 'client.list').then(async ({ clients }) => {
        const name = clients
          .map((/** @type {any} */ { name }) => name)
          .find((/** @type {string} */ name) => name.startsWith('page.'));
        return name ? sensor.call('.broker', 'client.info', { name }) : { options: [] };
      });
      if (options.length > 0) break;
    }
    await sensor.publish('temperature/boiler', '71.5');
    await page.waitForFunction(() => document.body.textContent?.includes('temperature/boiler: 71.5'));
    await page.close();
    await sensor.close();
  });

  await context.test('a broker that is not there, and one that goes away', { timeout: 30_000 }, async () => {
    const admin = await connect(web.broker.path, 'admin');
    const page = await browser.newPage();
    await page.exposeFunction('kick', (/** @type {string} */ name) =>
      admin.call('.broker', 'client.kick', { name }),
    );
    await page.goto(`${origin}/empty.html`);
    const kinds = await page.evaluate(
      async ({ address, token }) => {
        const { connect } = await import(/** @type {any} */ ('/src/index.js'));
        const kindOf = (/** @type {any} */ error) => error.kind;
        const refused = [
          await connect('ws://127.0.0.1:1/', 'x').catch(kindOf),
          await connect('/tmp/elbus.sock', 'x').catch(kindOf),
          await connect('localhost:1', 'x').catch(kindOf),
          await connect(address.replace('ws:', 'http:'), 'x').catch(kindOf),
          await connect(address, 'x').catch(kindOf),
          await connect(address, 'x', { token: 'wrong' }).catch(kindOf),
        ];
        const client = await connect(address, 'browser.kicked', { token, reconnect: { firstDelay: 1 } });
        const events = client.events();
        await /** @type {any} */ (globalThis).kick(client.name);
        for await (const event of events) {
          refused.push(event.type);
          if (event.type === 'connected') break;
        }
        await client.close();
        return refused;
      },
      { address: web.address, token: web.token },
    );
    assert.deepEqual(kinds, [
      'no-broker',
      'bad-address',
      'bad-address',
      'bad-address',
      'no-broker',
      'no-broker',
      'disconnected',
      'retrying',
      'connected',
    ]);
    await page.close();
    await admin.close();
  });
});

/**
 * Runs one case in the page. Returns why it has failed.
 * @param {{ title: string, kind: string, index: number, address: string, token: string }} parameters
 * @returns {Promise<string | undefined>}
 */
async function runCase({ title, kind, index, address, token }) {
  const { cases } = await import(/** @type {any} */ ('/test/support/cases.js'));
  const { connect } = await import(/** @type {any} */ ('/src/index.js'));
  if (typeof (/** @type {any} */ (globalThis)[kind]) !== 'function') return `this browser has no ${kind}`;
  /** @type {any[]} */
  const clients = [];
  try {
    await cases[title]({
      canPause: kind === 'WebSocketStream',
      async connect(/** @type {string} */ name, /** @type {object} */ settings = {}) {
        const unique = name.startsWith('.') ? name : `browser${index}.${name}`;
        const given = { token, ...settings, ...(kind === 'WebSocket' ? { WebSocket } : {}) };
        const client = await connect(address, unique, given);
        clients.push(client);
        return client;
      },
    });
    return undefined;
  } catch (error) {
    return String(error instanceof Error ? error.stack : error);
  } finally {
    await Promise.all(clients.map((client) => client.close()));
  }
}
