// Makes the pictures of the documentation, of an invented plant: `node screenshots.js FOLDER`. Every view, in
// light and dark, and on a phone.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { connect } from '../../../clients/javascript/src/index.js';
import { launch } from './support/browser.js';
import { Crowd } from './support/crowd.js';
import { openPage, show } from './support/page.js';
import { startPlant } from './support/plant.js';
import { startInventedSite } from './support/invented-site.js';
import { serveWebMethods } from './support/web-methods.js';

const folder = process.argv[2] ?? '.';
const chosen = process.argv.slice(3);
mkdirSync(folder, { recursive: true });

/** Views by the name of their picture; `prepare` does what a reader would do first. */
const PICTURES =
  /** @type {Record<string, [string, ((page: import('playwright-core').Page) => Promise<void>)?]>} */ ({
    overview: ['overview'],
    clients: [
      'clients',
      async (page) => {
        await page.getByRole('button', { name: 'Receives /s' }).click();
      },
    ],
    topics: [
      'topics',
      async (page) => {
        await page.locator('.vt-row[data-key="/oven/state"]').click();
        await page.waitForTimeout(5000);
      },
    ],
    map: ['map'],
    calls: [
      'calls',
      async (page) => {
        await page.getByLabel('Method', { exact: true }).fill('explain');
        await page.getByLabel('name', { exact: true }).fill('plant.oven');
        await page.getByLabel('target', { exact: true }).fill('oven/state');
        await page.getByRole('button', { name: 'Call', exact: true }).click();
      },
    ],
    plugins: ['plugins?name=panel'],
    events: ['events'],
    explain: ['explain?action=publish&name=plant.press&target=press%2Flog'],
  });

const site = await startInventedSite({ settings: 'remote_admin = true' });
const web = await serveWebMethods(site.broker.path);
const plant = await startPlant(site.broker.path);
const crowd = new Crowd(site.broker.path);
await crowd.joinAll(Array.from({ length: 120 }, (_, number) => `hall.${1 + (number % 4)}.sensor.${number}`));
const panels = [];
for (let line = 2; line <= 6; line += 1) {
  const panel = await connect(site.broker.path, `hmi.line${line}`);
  await panel.addFilters([`line${line}/#`, 'hall/+']);
  panels.push(panel);
}
const browser = await launch();
const looks = /** @type {[string, import('playwright-core').BrowserContextOptions][]} */ ([
  ['', { colorScheme: 'light', viewport: { width: 1360, height: 800 } }],
  ['-dark', { colorScheme: 'dark', viewport: { width: 1360, height: 800 } }],
  [
    '-phone',
    { colorScheme: 'light', viewport: { width: 390, height: 800 }, deviceScaleFactor: 2, isMobile: true },
  ],
]);
try {
  for (const [suffix, options] of looks) {
    const { page, close } = await openPage(browser, site, options);
    for (const [name, [address, prepare]] of Object.entries(PICTURES)) {
      if (chosen.length > 0 && !chosen.includes(`${name}${suffix}`)) continue;
      await show(page, address);
      await page.waitForTimeout(3000);
      await prepare?.(page);
      await page.waitForTimeout(500);
      await page.screenshot({ path: join(folder, `web-${name}${suffix}.png`) });
    }
    await close();
  }
} finally {
  await browser.close();
  crowd.close();
  await Promise.all(panels.map((panel) => panel.close()));
  await plant.stop();
  await web.client.close();
  await site.close();
}
