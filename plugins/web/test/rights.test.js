// Signing in, and what a page may not do: it shows the broker's reasons instead of failing.

import assert from 'node:assert/strict';
import test from 'node:test';

import { connect } from '../../../clients/javascript/src/index.js';
import { launch, skip } from './support/browser.js';
import { contains, openPage, show } from './support/page.js';
import { startSite } from './support/site.js';

if (skip) console.log(skip);

test('signing in', { skip, timeout: 200_000 }, async (context) => {
  const site = await startSite();
  const browser = await launch();
  context.after(async () => {
    await browser.close();
    await site.close();
  });
  const page = await (await browser.newContext()).newPage();
  await page.goto(site.origin);
  const form = page.locator('form.sign-in');

  await context.test('without a token the page asks for one', async () => {
    await form.waitFor();
    assert.equal(await page.evaluate(() => document.activeElement?.getAttribute('type')), 'password');
  });

  await context.test('a wrong token is refused with a sentence', async () => {
    await form.getByLabel('Token').fill('elbus_wrong');
    await page.keyboard.press('Enter');
    await contains(form.getByRole('alert'), 'The broker refuses the connection');
    await form.getByLabel('Token').fill('not a token');
    await page.keyboard.press('Enter');
    await contains(form.getByRole('alert'), 'expected letters, digits and punctuation');
  });

  await context.test('a name that is taken is refused', async () => {
    const other = await connect(site.broker.path, 'web.page.taken');
    await form.getByLabel('Token').fill(await site.broker.token());
    await form.getByLabel('Name of this page on the bus').fill('web.page.taken');
    await page.keyboard.press('Enter');
    await contains(form.getByRole('alert'), 'web.page.taken');
    await other.close();
  });

  await context.test('the right token connects, and is kept for this tab only', async () => {
    await form.getByLabel('Name of this page on the bus').fill('web.page.mine');
    await page.keyboard.press('Enter');
    await contains(page.locator('#identity'), 'web.page.mine');
    await page.reload();
    await contains(page.locator('#state'), 'Connected');
    assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
    const second = await (await browser.newContext()).newPage();
    await second.goto(site.origin);
    await second.locator('form.sign-in').waitFor();
    await second.close();
  });

  await context.test('signing out forgets the token', async () => {
    await page.getByRole('button', { name: 'Sign out' }).click();
    await form.waitFor();
    assert.equal(await form.getByLabel('Token').inputValue(), '');
  });
});

test('a page that may only read', { skip, timeout: 200_000 }, async (context) => {
  const site = await startSite({ hasTokens: true });
  const browser = await launch();
  const victim = await connect(site.broker.path, 'victim');
  context.after(async () => {
    await victim.close();
    await browser.close();
    await site.close();
  });
  const { page, failures } = await openPage(browser, site);
  const main = page.locator('main');
  await contains(page.locator('#identity'), 'read-only');

  await context.test('clients are not disconnected', async () => {
    await show(page, 'clients?name=victim');
    const button = main.getByRole('button', { name: 'Disconnect' });
    await contains(main.locator('.action'), 'client.kick is for clients of this machine only (remote_admin)');
    assert.equal(await button.getAttribute('aria-disabled'), 'true');
    await button.click({ force: true });
    assert.equal(await page.getByRole('dialog').count(), 0);
    assert.ok(victim.isConnected);
  });

  await context.test('plugins are not stopped, and have their events as a log', async () => {
    await show(page, 'plugins?name=announce');
    const stop = main.getByRole('button', { name: 'Stop' });
    await stop.waitFor();
    assert.equal(await stop.getAttribute('aria-disabled'), 'true');
    assert.equal(
      await main.getByRole('button', { name: 'Reload configuration' }).getAttribute('aria-disabled'),
      'true',
    );
    await contains(main.getByRole('complementary'), 'Log');
  });

  await context.test('administrative methods are marked in the form of calls', async () => {
    await show(page, 'calls');
    await main.getByLabel('Method', { exact: true }).fill('client.kick');
    await contains(main.locator('form.call'), '(administrative)');
    await contains(main.locator('form.call .action'), 'remote_admin');
    assert.equal(
      await main.getByRole('button', { name: 'Call', exact: true }).getAttribute('aria-disabled'),
      'true',
    );
  });

  assert.deepEqual(failures, []);
});

test('a page that access rules restrict', { skip, timeout: 200_000 }, async (context) => {
  const site = await startSite({
    plugins: `
[[plugin]]
name = "access"
builtin = "acl"
[[plugin.config.client]]
name = "web.page.*"
call = ["deny client.list", "deny web.history", "deny plugin.list", "allow *"]
subscribe = ["allow open/#"]
publish = ["deny #"]
[[plugin.config.client]]
name = "*"
publish = ["allow #"]
`,
  });
  const browser = await launch();
  context.after(async () => {
    await browser.close();
    await site.close();
  });
  const { page, failures } = await openPage(browser, site);
  const main = page.locator('main');

  await context.test('views show the refusals', async () => {
    await show(page, 'overview');
    await contains(
      main.locator('.notice'),
      /No history: access rules do not allow web\.page\.\w+ to call web\.history/,
    );
    await show(page, 'clients');
    await contains(main.locator('.notice'), /No list of clients: access rules do not allow/);
    await show(page, 'plugins');
    await contains(main.locator('.notice'), /No list of plugins: access rules do not allow/);
    await show(page, 'topics');
    await contains(main.locator('.notice'), /Not subscribed: access denied/);
    await show(page, 'topics?filter=open/%23');
    await contains(main.locator('.vt-empty'), 'Nothing has been published yet');
    await main.getByRole('button', { name: 'Publish', exact: true }).first().click();
    const form = main.getByRole('form', { name: 'Publish' });
    await form.getByLabel('Topic').fill('open/x');
    await form.getByRole('button', { name: 'Publish' }).click();
    await contains(form.locator('.notice'), /Not published: access denied/);
  });

  await context.test('explain names the rule and its place in the file', async () => {
    const name = String(await page.locator('#identity bdi').textContent());
    await show(page, `explain?${new URLSearchParams({ action: 'publish', name, target: 'open/x' })}`);
    await contains(main.locator('.verdict'), 'Denied');
    await contains(main.locator('.answer'), /Rule.*deny #/);
    await contains(main.locator('.answer'), /Place.*broker\.toml:\d+/);
  });

  assert.deepEqual(failures, []);
});
