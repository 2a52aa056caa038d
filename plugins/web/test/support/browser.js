// Headless Chromium for tests.

import { existsSync } from 'node:fs';

import { chromium } from 'playwright-core';

const executablePath = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(
  (path) => path !== undefined && existsSync(path),
);

/** Why the tests are skipped, `false` if there is a browser. */
export const skip =
  executablePath === undefined && 'NOT TESTED: no Chromium; install the package chromium, or set CHROMIUM';

/** Starts the browser. */
export function launch() {
  return chromium.launch({ executablePath, args: ['--no-sandbox', '--js-flags=--expose-gc'] });
}
