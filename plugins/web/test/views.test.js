// Every view in a browser, with a live broker under load.

import assert from 'node:assert/strict';
import test from 'node:test';

import { connect } from '../../../clients/javascript/src/index.js';
import { launch, skip } from './support/browser.js';
import { assertFits, contains, openPage, show } from './support/page.js';
import { startPlant } from './support/plant.js';
import { startSite } from './support/site.js';

if (skip) console.log(skip);

test('views', { skip, timeout: 400_000 }, async (context) => {
  const plugins = `
[[plugin]]
name = "keeper"
builtin = "retain"
[plugin.config]
topic = [{ filter = "kept/#" }]
`;
  const site = await startSite({ plugins });
  const browser = await launch();
  const plant = await startPlant(site.broker.path);
  const admin = await connect(site.broker.path, 'admin');
  context.after(async () => {
    await plant.stop();
    await admin.close();
    await browser.close();
    await site.close();
  });
  const { page, failures } = await openPage(browser, site);
  const main = page.locator('main');

  await context.test('the token leaves the address, and the state is shown', async () => {
    assert.doesNotMatch(page.url(), /token/);
    await contains(page.locator('#state'), 'Connected');
    await contains(page.locator('#broker'), 'plant');
    // the token of the start administers
    await contains(page.locator('#identity'), /^web\.page\.[0-9a-f]{8}$/);
  });

  await context.test('overview', async () => {
    await show(page, 'overview');
    const messages = main.getByRole('region', { name: 'Messages', exact: true });
    await contains(messages.locator('.readout'), /in[1-9][\d.]* \/s.*out[1-9][\d.]* \/s/);
    await contains(main.getByRole('region', { name: 'Clients', exact: true }).locator('.readout'), /[6-9]$/);
    await contains(main.locator('.top-list li'), /Receives most.*plant\.(archive|display)/);
    await contains(main.locator('.health'), /Clients ?\d+/);
    // something is drawn
    const colours = await messages.locator('canvas').evaluate((canvas) => {
      const { width, height } = /** @type {HTMLCanvasElement} */ (canvas);
      const data = /** @type {HTMLCanvasElement} */ (canvas)
        .getContext('2d')
        ?.getImageData(0, 0, width, height).data;
      return new Set(new Uint32Array(data?.buffer ?? new ArrayBuffer(0))).size;
    });
    assert.ok(colours > 10, `${colours} colours`);
    // the cursor of the keyboard
    await messages.locator('canvas').focus();
    await page.keyboard.press('Home');
    await contains(messages.locator('.plot-time'), /^\d\d:\d\d:\d\d$/);
    await main.locator('.top-list a').first().click();
    await page.waitForFunction(() => /^#\/clients\?name=./.test(location.hash));
  });

  await context.test('clients', async () => {
    await show(page, 'clients');
    const table = main.getByRole('grid', { name: 'Clients' });
    const oven = table.locator('.vt-row[data-key="plant.oven"]');
    await oven.waitFor();
    // rates need two answers
    await page.waitForFunction(() =>
      /^\d/.test(document.querySelector('[data-key="plant.oven"]')?.children[1].textContent ?? ''),
    );
    await contains(oven, /block/);
    await main.getByLabel('Filter by name or mask').fill('plant.?');
    await contains(main.locator('.summary'), /^4 of \d+ clients/);
    await main.getByLabel('Filter by name or mask').fill('nobody');
    await contains(main.locator('.vt-empty'), 'No client matches');
    await main.getByLabel('Filter by name or mask').fill('');
    await table.getByRole('button', { name: 'Sends /s' }).click();
    assert.equal(await table.locator('[aria-sort="descending"]').textContent(), '▾Sends /s');
    await table.getByRole('button', { name: 'Name' }).click();
    await table.locator('.vt-row[data-key="plant.archive"]').click();
    const details = main.getByRole('complementary');
    await contains(details, /Kindlocal_ipc/);
    await contains(details, /PID \d+/);
    await contains(details.locator('table'), /\$latest\/#/);
  });

  await context.test('a client is disconnected, after a question', async () => {
    const victim = await connect(site.broker.path, 'victim');
    await show(page, 'clients?name=victim');
    await main.getByRole('button', { name: 'Disconnect' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
    assert.ok(victim.isConnected);
    await main.getByRole('button', { name: 'Disconnect' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Disconnect' }).click();
    await contains(page.locator('#messages'), 'victim is disconnected.');
    await assert.rejects(victim.roundTrip());
    await victim.close();
  });

  await context.test('topics', async () => {
    await show(page, 'topics');
    const tree = main.getByRole('treegrid', { name: 'Topics' });
    const row = (/** @type {string} */ key) => tree.locator(`.vt-row[data-key="${key}"]`);
    await contains(row('/oven/temperature'), /1[78]\d\.\d\d/);
    await contains(row('/oven/state'), /\{"celsius": 1\d\d/);
    await contains(row('/press/cycle'), /\{"number": \d+, "force": 1[12]\d\d/);
    await contains(row('/press/raw'), /^raw.*ff fe/);
    await contains(row('/press/log'), /cycle \d+ done/);
    await page.waitForFunction(
      () => Number(document.querySelector('[data-key="/oven/temperature"]')?.children[1].textContent) > 1,
    );
    await row('/press/cycle').click();
    const details = main.getByRole('complementary');
    await contains(details, /Last value \(msgpack\)/);
    await details.getByLabel('Field').selectOption('force');
    await contains(details.locator('.readout'), /1,?[12]\d\d/);
    await main.getByLabel('Values as').selectOption('hex');
    await contains(details, /Last value \(hex\)/);
    await main.getByLabel('Values as').selectOption('auto');
    // the page never holds a publisher
    const name = String(await page.locator('#identity').textContent());
    const { options } = await admin.call('.broker', 'client.info', { name });
    assert.ok(
      options.some((/** @type {any} */ { filter }) => filter === '$lossy/#'),
      JSON.stringify(options),
    );
    // a branch is closed by the keyboard
    await main.getByLabel('Show').fill('oven');
    await row('/press').waitFor({ state: 'detached' });
    await tree.focus();
    await page.keyboard.press('Home');
    const count = await tree.locator('.vt-row[data-key^="/oven/"]').count();
    assert.ok(count >= 2);
    await page.keyboard.press('ArrowLeft');
    await row('/oven/state').waitFor({ state: 'detached' });
    assert.equal(await row('/oven').getAttribute('aria-expanded'), 'false');
    await page.keyboard.press('ArrowRight');
    await row('/oven/state').waitFor();
    await row('/oven').locator('.twist').click();
    await row('/oven/state').waitFor({ state: 'detached' });
    await main.getByLabel('Show').fill('cycle');
    await page.waitForFunction(() => document.querySelector('[data-key="/press/log"]') === null);
    await main.getByLabel('Show').fill('');
  });

  await context.test('publishing by hand', async () => {
    const listener = await connect(site.broker.path, 'listener');
    const frames = await listener.subscribe('by/hand');
    await show(page, 'topics');
    await main.getByRole('button', { name: 'Publish', exact: true }).first().click();
    const form = main.getByRole('form', { name: 'Publish' });
    await form.getByLabel('Topic').fill('by/hand');
    await form.getByLabel('Payload', { exact: true }).fill('{"a": [1, "ü"]}');
    for (const [format, expected] of /** @type {[string, unknown][]} */ ([
      ['text', '{"a": [1, "ü"]}'],
      ['msgpack', { a: [1, 'ü'] }],
    ])) {
      await form.getByLabel('The payload is').selectOption(format);
      await form.getByRole('button', { name: 'Publish' }).click();
      const { value } = await frames.next();
      assert.deepEqual(format === 'text' ? value?.text() : value?.msgpack(), expected);
    }
    await form.getByLabel('The payload is').selectOption('hex');
    await form.getByRole('button', { name: 'Publish' }).click();
    await contains(form, /Not published: expected pairs of hexadecimal digits/);
    await form.getByLabel('Payload', { exact: true }).fill('00 fF');
    await form.getByRole('button', { name: 'Publish' }).click();
    assert.deepEqual((await frames.next()).value?.payload, new Uint8Array([0, 255]));
    await listener.close();
  });

  await context.test('map', async () => {
    await show(page, 'map');
    const topic = main.getByRole('button', { name: 'Topic oven/temperature' });
    await topic.waitFor();
    await main.getByRole('button', { name: 'Sender hmi.line1' }).click();
    await contains(main.locator('.flow-table h2'), 'hmi.line1');
    await contains(main.locator('.flow-table tr'), /hmi\.line1plant\.ovencall/);
    assert.ok((await main.locator('.flow.on').count()) >= 2);
    await page.keyboard.press('Escape');
    await contains(main.locator('.flow-table h2'), 'Largest flows');
    // from a topic to its subscribers
    await main.getByRole('button', { name: 'Subscriber plant.archive' }).waitFor();
    await topic.click();
    await contains(main.locator('.flow-table'), /Subscribers \(2\).*plant\.archive.*plant\.display/);
    assert.equal(await main.locator('.flow.subscription.on').count(), 2);
    await main.getByRole('button', { name: 'Subscriber plant.display' }).click();
    await contains(main.locator('.flow-table tr'), /plant\.ovenoven\/temperaturetopic/);
    await page.keyboard.press('Escape');
    await main.getByRole('checkbox', { name: 'Topics' }).uncheck();
    await topic.waitFor({ state: 'detached' });
    await main.getByRole('checkbox', { name: 'Topics' }).check();
    await main.getByLabel('Filter by name or mask').fill('plant.press');
    await main.getByRole('button', { name: 'Sender hmi.line1' }).waitFor({ state: 'detached' });
  });

  await context.test('calls', async () => {
    await show(page, 'calls');
    await contains(
      main.getByRole('region', { name: 'Slow calls' }),
      /hmi\.line1plant\.ovencalibrate[\d.]+ ms/,
    );
    await contains(main.getByRole('region', { name: 'Errors' }), /heat.*-32602: celsius must be at most 300/);
    await main.getByLabel('Method', { exact: true }).fill('explain');
    await main.getByLabel('action').selectOption('publish');
    await main.getByLabel('name', { exact: true }).fill('plant.oven');
    await main.getByLabel('target', { exact: true }).fill('oven/temperature');
    await main.getByRole('button', { name: 'Call' }).click();
    await contains(main.locator('form .value'), /"allowed": true/);
    await contains(main.locator('form .value'), /plant\.display/);
    await main.getByLabel('Target', { exact: true }).fill('plant.oven');
    await main.getByLabel('Method', { exact: true }).fill('heat');
    await main.getByLabel('Parameters', { exact: true }).fill('{"celsius": 190}');
    await page.keyboard.press('Tab');
    await main.getByRole('button', { name: 'Call' }).click();
    await contains(main.locator('form .value'), /"celsius": 190,\s+"heating": true/);
    await main.getByLabel('Method', { exact: true }).fill('unknown');
    await main.getByRole('button', { name: 'Call' }).click();
    await main.locator('form .value.bad').waitFor();
  });

  await context.test('plugins', async () => {
    await show(page, 'plugins');
    await contains(main.locator('tr', { hasText: 'announce' }), /started/);
    await main.getByRole('button', { name: 'local' }).click();
    const details = main.getByRole('complementary');
    await contains(details.locator('.log'), /info.*plugin started/);
    await contains(details, 'queue_bytes = 8388608');
    await details.getByRole('button', { name: 'Close' }).click();
    await main.getByRole('button', { name: 'announce' }).click();
    await details.getByRole('button', { name: 'Stop' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Stop' }).click();
    await contains(main.locator('tr', { hasText: 'announce' }), 'stopped');
    await details.getByRole('button', { name: 'Start' }).click();
    await contains(main.locator('tr', { hasText: 'announce' }), 'started');
  });

  await context.test('events', async () => {
    await show(page, 'events');
    const table = main.getByRole('grid', { name: 'Events, newest first' });
    const other = await connect(site.broker.path, 'visitor');
    await contains(table.locator('.vt-row'), /Connectvisitor/);
    await admin.call('.broker', 'client.kick', { name: 'visitor' });
    await contains(table.locator('.vt-row'), /Disconnectvisitor.*kicked by admin/);
    await other.close();
    await contains(table.locator('.vt-row'), /Pluginannounce/);
    await main.getByLabel('Filter by name or text').fill('visitor');
    await main.getByLabel('Connect', { exact: true }).uncheck();
    await table
      .locator('.vt-row[data-key]', { hasText: /^[\d:]+Connect/ })
      .first()
      .waitFor({ state: 'detached' });
    await table.locator('.vt-row[data-key]').first().click();
    await contains(main.locator('.whole'), /visitor.*kicked by admin/);
  });

  await context.test('explain', async () => {
    await show(page, 'explain');
    await main.getByLabel('Client').fill('plant.press');
    await main.getByLabel('Topic').fill('press/log');
    await main.getByRole('button', { name: 'Explain' }).click();
    await contains(main.locator('.answer'), /Allowed/);
    await contains(main.locator('.recipients'), 'plant.display');
    await contains(main.locator('.answer table'), /plant\.archive.*\$latest/);
    // an interceptor, and its place in the file
    await main.getByLabel('Topic').fill('kept/x');
    await main.getByRole('button', { name: 'Explain' }).click();
    await contains(main.locator('.answer table'), /keeper.*rejects or changes it.*broker\.toml:\d+/);
    await main.getByLabel('wants to').selectOption('subscribe');
    await main.getByLabel('Filter').fill('$share/');
    await main.getByRole('button', { name: 'Explain' }).click();
    await contains(main.locator('.answer'), /No answer.*invalid target/);
  });

  await context.test('every view fits a phone, and a wall screen', async () => {
    for (const width of [360, 390, 1360, 3840]) {
      await page.setViewportSize({ width, height: width < 500 ? 740 : 900 });
      for (const view of [
        'overview',
        'clients?name=plant.oven',
        'topics',
        'map',
        'calls',
        'plugins',
        'events',
        'explain',
      ]) {
        await show(page, view);
        await page.waitForTimeout(150);
        await assertFits(page);
      }
    }
    await page.setViewportSize({ width: 1360, height: 850 });
  });

  await context.test('the connection is lost and found', async () => {
    await show(page, 'clients');
    const name = String(await page.locator('#identity').textContent());
    // the page is back so soon that its state could be missed
    await page.evaluate(() => {
      const state = document.querySelector('#state');
      const seen = /** @type {(string | null)[]} */ ([]);
      Object.assign(window, { seen });
      if (state !== null)
        new MutationObserver(() => seen.push(state.textContent)).observe(state, {
          childList: true,
          characterData: true,
          subtree: true,
        });
    });
    await admin.call('.broker', 'client.kick', { name });
    const seen = (/** @type {string} */ text) =>
      page.waitForFunction(
        (expected) =>
          /** @type {any} */ (window).seen.some((/** @type {string} */ state) => state.startsWith(expected)),
        text,
      );
    await seen('Disconnected');
    await seen('Connected');
    await contains(page.locator('#state'), /^Connected$/);
    await contains(main.locator('.summary'), /clients/);
    assert.equal(await page.locator('#identity').textContent(), name);
  });

  assert.deepEqual(failures, []);
});
