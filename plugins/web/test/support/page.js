// Opens the page in the browser, and fails a test for anything that goes wrong in it: exceptions, violations
// of the content security policy, requests to anywhere else.

import assert from 'node:assert/strict';

/** @typedef {import('playwright-core').Page} Page */

/**
 * Opens the page, signed in. Returns it with what has gone wrong so far.
 * @param {import('playwright-core').Browser} browser
 * @param {import('./site.js').Site} site
 * @param {import('playwright-core').BrowserContextOptions} [options]
 */
export async function openPage(browser, site, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 850 }, ...options });
  const page = await context.newPage();
  /** @type {string[]} */
  const failures = [];
  page.on('pageerror', (error) => failures.push(`exception: ${error.stack ?? error}`));
  page.on('console', (message) => {
    if (message.type() === 'error') failures.push(`console: ${message.text()}`);
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(site.origin)) failures.push(`request to ${request.url()}`);
  });
  page.on('dialog', (dialog) => {
    failures.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.goto(site.url);
  await page.locator('#views a').first().waitFor();
  return { page, failures, close: () => context.close() };
}

/**
 * Shows a view.
 * @param {Page} page
 * @param {string} address For example `clients?name=a`.
 */
export async function show(page, address) {
  await page.evaluate((to) => {
    location.hash = `#/${to}`;
  }, address);
  const id = address.split('?')[0];
  await page.locator(`main.view-${id}`).waitFor();
}

/**
 * Waits until an element contains a text.
 * @param {import('playwright-core').Locator} locator
 * @param {string | RegExp} text
 */
export async function contains(locator, text) {
  await locator.filter({ hasText: text }).first().waitFor({ timeout: 30_000 });
}

/**
 * Nothing is wider than the screen.
 * @param {Page} page
 */
export async function assertFits(page) {
  const wide = await page.evaluate(() => {
    const limit = document.documentElement.clientWidth;
    const { scrollWidth } = document.documentElement;
    const main = document.querySelector('main');
    const isScrolled = main !== null && main.scrollWidth > main.clientWidth + 1;
    return scrollWidth > limit || isScrolled
      ? [scrollWidth, limit, main?.scrollWidth, main?.clientWidth]
      : undefined;
  });
  assert.equal(wide, undefined, `the page is wider than the screen: ${wide}`);
}

/**
 * The size of the page's heap in bytes after a collection, and its number of DOM nodes.
 * @param {Page} page
 */
export async function memoryOf(page) {
  const session = await page.context().newCDPSession(page);
  await session.send('HeapProfiler.enable');
  for (let time = 0; time < 3; time += 1) await session.send('HeapProfiler.collectGarbage');
  const { usedSize } = await session.send('Runtime.getHeapUsage');
  const { nodes } = await session.send('Memory.getDOMCounters');
  await session.detach();
  return { heap: usedSize, nodes };
}
