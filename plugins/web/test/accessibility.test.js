// Every view, light and dark, as axe-core judges it; the page by keyboard, and without motion.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import test from 'node:test';

import { launch, skip } from './support/browser.js';
import { openPage, show } from './support/page.js';
import { startPlant } from './support/plant.js';
import { startSite } from './support/site.js';

if (skip) console.log(skip);

const VIEWS = [
  'overview',
  'clients?name=plant.oven',
  'topics',
  'map',
  'calls',
  'plugins?name=local',
  'events',
  'explain?action=publish&name=plant.press&target=press/log',
];
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

test('accessibility', { skip, timeout: 400_000 }, async (context) => {
  const site = await startSite();
  const browser = await launch();
  const plant = await startPlant(site.broker.path);
  context.after(async () => {
    await plant.stop();
    await browser.close();
    await site.close();
  });

  for (const colorScheme of /** @type {('light' | 'dark')[]} */ (['light', 'dark']))
    await context.test(`no violation, ${colorScheme}`, async () => {
      const { page, close } = await openPage(browser, site, { colorScheme });
      // by the debugger: the policy of the page allows no other script
      await page.evaluate(axe);
      /** @type {Record<string, unknown>} */
      const all = {};
      for (const view of VIEWS) {
        await show(page, view);
        // lists are filled by the first answers
        await page.waitForTimeout(1500);
        const found = await page.evaluate(async () => {
          const { violations } = await /** @type {any} */ (window).axe.run(document, {
            resultTypes: ['violations'],
          });
          return violations.map((/** @type {any} */ { id, nodes }) => [
            id,
            nodes.map((/** @type {any} */ node) => node.html),
          ]);
        });
        if (found.length > 0) all[view] = found;
      }
      assert.deepEqual(all, {});
      await close();
    });

  await context.test('the keyboard reaches the content and every view', async () => {
    const { page, failures, close } = await openPage(browser, site);
    await show(page, 'overview');
    await page.evaluate(() => /** @type {HTMLElement} */ (document.activeElement)?.blur());
    await page.keyboard.press('Tab');
    const active = () => page.evaluate(() => document.activeElement?.textContent?.trim());
    assert.equal(await active(), 'Skip to content');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement?.closest('main') !== null), true);
    const names = await page.locator('#views a').allTextContents();
    assert.equal(names.length, VIEWS.length);
    for (const name of names) {
      await page.locator('#views a', { hasText: name }).focus();
      const outline = await page.evaluate(() => {
        const { outlineStyle, outlineWidth } = getComputedStyle(
          /** @type {Element} */ (document.activeElement),
        );
        return outlineStyle !== 'none' && Number.parseFloat(outlineWidth) > 0;
      });
      assert.ok(outline, `${name} shows no focus`);
      await page.keyboard.press('Enter');
      await page.locator('main h1', { hasText: name.trim() }).waitFor();
    }
    assert.deepEqual(failures, []);
    await close();
  });

  await context.test('nothing moves where motion is not wanted', async () => {
    const { page, close } = await openPage(browser, site, { reducedMotion: 'reduce' });
    for (const view of VIEWS) {
      await show(page, view);
      await page.waitForTimeout(200);
      const moving = await page.evaluate(() => document.getAnimations().length);
      assert.equal(moving, 0, view);
    }
    await close();
  });
});
