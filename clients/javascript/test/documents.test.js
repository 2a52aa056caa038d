/**
 * The programs of the documents run and print what the documents say.
 * @module
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Broker } from './support/broker.js';

const packageFolder = fileURLToPath(new URL('..', import.meta.url));
const documents = ['README.md', '../../docs/javascript.md'];

const broker = new Broker();
test.before(async () => {
  await broker.start();
  mkdirSync(join(broker.folder, 'node_modules'));
  symlinkSync(packageFolder, join(broker.folder, 'node_modules/elbus'));
  writeFileSync(join(broker.folder, 'package.json'), '{ "type": "module" }');
});
test.after(() => broker.remove());

for (const document of documents) {
  const text = readFileSync(new URL(`../${document}`, import.meta.url), 'utf8');
  const programs = [...text.matchAll(/```js\n(.*?)```\n(.*?)(?=```js|$)/gs)];
  assert.ok(programs.length > 0);
  for (const [index, [, program, rest]] of programs.entries()) {
    test(`${document}: program ${index + 1}`, { timeout: 30_000 }, async () => {
      const [, expected] = /```text\n(.*?)```/s.exec(rest) ?? [];
      assert.ok(expected !== undefined, 'the document does not say what the program prints');
      const file = join(broker.folder, `${document.replaceAll(/\W/g, '-')}-${index}.js`);
      writeFileSync(file, program.replaceAll('/tmp/elbus.sock', broker.path));
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [file]);
      assert.deepEqual([stdout, stderr], [expected, '']);
    });
  }
}
