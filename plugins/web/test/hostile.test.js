// Clients, topics and payloads that try to run in the page, to break its layout, or to fill its memory.

import assert from 'node:assert/strict';
import test from 'node:test';

import { connect } from '../../../clients/javascript/src/index.js';
import { launch, skip } from './support/browser.js';
import { Crowd } from './support/crowd.js';
import { assertFits, contains, memoryOf, openPage, show } from './support/page.js';
import { startInventedSite } from './support/invented-site.js';
import { serveWebMethods } from './support/web-methods.js';

if (skip) console.log(skip);

const HOSTILE = [
  '<img src=x onerror="window.hacked=1">',
  '<script>window.hacked=1</script>',
  '"><svg onload=window.hacked=1>',
  'javascript:window.hacked=1',
  '{{constructor.constructor("window.hacked=1")()}}',
  '\u202egnp.exe\u202c \u2066right\u2069 to left',
  'مرحبا بالعالم שלום',
  'line\nbreak\tand\rreturn\u0007\u001b[31m',
  '\u200b\u200c\u200d\ufeff\u2060',
  'Z\u0351\u036b\u0343\u036a\u0302a\u0360\u0311\u0357l\u0353\u0327g\u0312\u0350o'.repeat(20),
  'x'.repeat(900),
  '__proto__',
  'constructor',
  '"] , body, [x="',
  '\u{1f468}\u200d\u{1f469}\u200d\u{1f467}\u{e0041}\ud83d\ude00',
  ' ',
];

/** @type {Uint8Array[]} */
const PAYLOADS = [
  ...HOSTILE.map((text) => new TextEncoder().encode(text)),
  ...HOSTILE.map((text) => new TextEncoder().encode(JSON.stringify({ [text]: text }))),
  new Uint8Array([0xff, 0xfe, 0xc3, 0x28]), // not UTF-8
  new Uint8Array([0xdf, 0xff, 0xff, 0xff, 0xff]), // msgpack: a map of 4 G entries
  new Uint8Array([0x81, 0xa9, ...new TextEncoder().encode('__proto__'), 0x81, 0xa1, 0x61, 0x01]),
  new Uint8Array(20_000).fill(0x91), // msgpack: arrays in arrays
  new TextEncoder().encode('['.repeat(50_000)),
  new TextEncoder().encode(`{"a":${'['.repeat(2000)}${']'.repeat(2000)}}`),
  new TextEncoder().encode('1e999'),
  new Uint8Array([0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]), // NaN
  new Uint8Array([0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
  new Uint8Array([0xd6, 0xff, 0xff, 0xff, 0xff, 0xff]), // a timestamp
  // a timestamp that is not a date
  new Uint8Array([0xc7, 0x0c, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
  new Uint8Array(2_000_000).fill(0x41),
  new Uint8Array(),
];

test('hostile texts and payloads', { skip, timeout: 400_000 }, async (context) => {
  const site = await startInventedSite();
  const browser = await launch();
  const crowd = new Crowd(site.broker.path);
  const web = await serveWebMethods(site.broker.path);
  const admin = await connect(site.broker.path, 'admin');
  context.after(async () => {
    crowd.close();
    await web.client.close();
    await admin.close();
    await browser.close();
    await site.close();
  });
  const { page, failures } = await openPage(browser, site);
  const main = page.locator('main');
  await crowd.joinAll(HOSTILE);

  const assertUnharmed = async () => {
    assert.equal(await page.evaluate(() => /** @type {any} */ (window).hacked), undefined);
    assert.equal(await page.evaluate(() => /** @type {any} */ ({}).a), undefined);
    const foreign = await page.evaluate(
      () =>
        document.querySelectorAll('main img, main script, main iframe, main [onload], main [onerror]').length,
    );
    assert.equal(foreign, 0);
    await assertFits(page);
  };
  /** Nothing that would change the direction or hide text is in the document. */
  const assertPlainText = async () => {
    const text = await page.evaluate(() => document.body.textContent ?? '');
    // eslint-disable-next-line no-control-regex -- these must not be there
    assert.doesNotMatch(text, /[\u0000-\u0008\u000b-\u001f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/u);
  };

  await context.test('names of clients', async () => {
    await show(page, 'clients');
    await contains(main.locator('.summary'), `${HOSTILE.length + 4} clients`);
    await assertUnharmed();
    await assertPlainText();
    const heights = await main
      .locator('.vt-space .vt-row')
      .evaluateAll((rows) => [...new Set(rows.map((row) => row.getBoundingClientRect().height))]);
    assert.deepEqual(heights, [28]);
    for (const name of HOSTILE) {
      await show(page, `clients?${new URLSearchParams({ name })}`);
      await contains(main.getByRole('complementary'), /Kindlocal_ipc/);
    }
    await assertUnharmed();
    await assertPlainText();
  });

  await context.test('topics and payloads', async () => {
    await show(page, 'topics');
    await contains(main.locator('.vt-empty'), 'Nothing has been published yet');
    for (const [index, payload] of PAYLOADS.entries()) await admin.publish(`payload/${index}`, payload);
    for (const topic of HOSTILE) await admin.publish(topic, topic);
    await admin.publish('deep/'.repeat(2000), 'x');
    await admin.publish('a/'.repeat(100), 'x');
    await admin.publish('', 'the empty topic');
    await contains(main.locator('.summary'), /very long topics/);
    await assertUnharmed();
    await assertPlainText();
    for (let index = 0; index < PAYLOADS.length; index += 1) {
      await main.getByLabel('Show').fill(`payload/${index}`);
      const row = main.locator(`.vt-row[data-key="/payload/${index}"]`);
      await row.click();
      for (const format of ['json', 'msgpack', 'text', 'hex', 'auto'])
        await main.getByLabel('Values as').selectOption(format);
      await contains(main.getByRole('complementary').locator('.definitions'), `payload/${index}`);
    }
    await assertUnharmed();
    await assertPlainText();
  });

  await context.test('answers of methods', async () => {
    const evil = HOSTILE[0];
    const answers = {
      'web.top': () => [{ name: evil, reason: evil, detail: evil, value: evil }, null, 7],
      'web.map': () => ({
        since_ms: evil,
        missed: evil,
        edges: [
          { from: evil, to: evil, kind: evil },
          null,
          { from: evil, to: `${evil}/#`, kind: 'topic', topic: evil, messages: 5, bytes: 5 },
          { from: evil, to: 'long', kind: 'topic', topic: 'x'.repeat(5000), messages: 1 },
          { from: evil, to: 'number', kind: 'topic', topic: 7, messages: 1 },
        ],
      }),
      'web.calls': () => ({
        slow: [{ caller: evil, target: evil, method: evil }, null],
        errors: [{ error: evil }],
      }),
      'web.events': () => ({
        newest: 3,
        missed: evil,
        events: [{ number: 1, kind: evil, subject: evil, text: evil }, 5],
      }),
      'web.history': () => ({
        interval_ms: evil,
        newest_ms: evil,
        series: { clients: [evil, null, -1], [evil]: evil },
      }),
    };
    Object.assign(web.answers, answers);
    const subscriber = await connect(site.broker.path, '<b onclick="window.hacked=1">subscriber');
    await subscriber.addFilters(['#']);
    await show(page, 'map');
    const name = main.getByRole('button', { name: 'Subscriber <b onclick' });
    await name.click();
    await contains(main.locator('.flow-table h2'), '<b onclick="window.hacked=1">subscriber');
    await main.getByRole('button', { name: 'Topic <img' }).click();
    await contains(main.locator('.flow-table li'), '<b onclick="window.hacked=1">subscriber');
    await assertUnharmed();
    await subscriber.close();
    for (const view of ['overview', 'map', 'calls', 'events', 'plugins']) {
      await show(page, view);
      await page.waitForTimeout(400);
      await assertUnharmed();
    }
    for (const nothing of [
      undefined,
      null,
      [],
      {},
      'text',
      42,
      { edges: 1, events: {}, series: [], slow: 'x' },
    ]) {
      for (const name of Object.keys(answers)) web.answers[name] = () => nothing;
      for (const view of ['overview', 'map', 'calls', 'events', 'plugins']) {
        await show(page, view);
        await page.waitForTimeout(60);
      }
    }
    await assertUnharmed();
  });

  await context.test('addresses', async () => {
    for (const hash of [
      '#/nothing',
      '#/clients?name=%00%ff',
      '#/explain?action=<b>&name=%22&target=x',
      '#/__proto__',
      '#',
    ]) {
      await page.evaluate((to) => {
        location.hash = to;
      }, hash);
      await main.locator('h1').waitFor();
    }
    await assertUnharmed();
  });

  await context.test(
    'more topics, and more messages, than a page can show',
    { timeout: 200_000 },
    async () => {
      await show(page, 'topics?filter=flood/%23');
      await contains(main.locator('.summary'), /^0 topics/);
      const before = await memoryOf(page);
      let number = 0;
      let isOver = false;
      const flooding = (async () => {
        while (!isOver) {
          for (let at = 0; at < 500; at += 1) {
            number += 1;
            await admin.publish(`flood/${number % 20_000}/x`, `${number}`, { qos: 'no' });
          }
          // acknowledged: a page that held the publisher would be seen here
          await admin.publish('other', 'x');
        }
      })();
      const wait = { timeout: 60_000 };
      await main.locator('.notice', { hasText: 'Sampled' }).first().waitFor(wait);
      // the publisher goes on
      const sent = number;
      while (number < sent + 40_000)
        await new Promise((resolve) => {
          setTimeout(resolve, 20);
        });
      await main.locator('.summary', { hasText: 'the latest 5,000 are kept' }).first().waitFor(wait);
      // the page answers to input meanwhile
      const start = performance.now();
      await main.getByLabel('Show').fill('flood/1', wait);
      console.log(`flood: input is answered in ${(performance.now() - start).toFixed(0)} ms`);
      isOver = true;
      await flooding;
      await show(page, 'explain');
      const after = await memoryOf(page);
      const grown = after.heap - before.heap;
      assert.ok(grown < 24 * 1024 * 1024, `the heap has grown by ${grown} bytes`);
    },
  );

  assert.deepEqual(failures, []);
});
