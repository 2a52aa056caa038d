/**
 * Brokers with TLS and with access rules.
 * @module
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';

import { connect } from '../src/index.js';
import { Broker } from './support/broker.js';

/**
 * Starts a broker with a configuration, in which `FOLDER` is its folder.
 * @param {import('node:test').TestContext} context
 * @param {string} configuration
 * @param {(folder: string) => void} [prepare]
 */
async function configured(context, configuration, prepare) {
  const broker = new Broker();
  context.after(() => broker.remove());
  prepare?.(broker.folder);
  const file = join(broker.folder, 'broker.toml');
  const local = `[[plugin]]\nname = "local"\nbuiltin = "unix"\n[plugin.config]\npath = "${broker.path}"\n`;
  writeFileSync(file, `${local}\n${configuration.replaceAll('FOLDER', broker.folder)}`);
  broker.configure(file);
  await broker.start();
  return broker;
}

test('access rules deny with a typed error that names the operation', async (context) => {
  const broker = await configured(
    context,
    `
[[plugin]]
name = "rpc"
builtin = "rpc"

[[plugin]]
name = "access"
builtin = "acl"
[[plugin.config.client]]
name = "plant.*"
who = [{ user = "${process.getuid?.()}" }]
publish = ["allow open/#"]
subscribe = ["allow open/#"]
send = ["allow plant.*"]
`,
  );
  await assert.rejects(connect(broker.path, 'other'), {
    kind: 'access-denied',
    code: 0x79,
    message: /"other"/,
  });
  const client = await connect(broker.path, 'plant.a', { reconnect: { firstDelay: 10 } });
  context.after(() => client.close());
  await client.publish('open/x', '1');
  await assert.rejects(client.publish('secret/x', '1'), {
    kind: 'access-denied',
    code: 0x79,
    message: /"secret\/x"/,
  });
  await assert.rejects(client.send('other', '1'), { kind: 'access-denied' });
  await assert.rejects(client.call('other', 'x'), { kind: 'access-denied' });
  await assert.rejects(client.broadcast('other.*', '1'), { kind: 'access-denied' });
  await assert.rejects(client.subscribe(['open/x', 'secret/#']), {
    kind: 'access-denied',
    message: /secret/,
  });
  const subscription = await client.subscribe('open/#');
  await client.publish('open/y', '2');
  assert.equal((await subscription.next()).value?.text(), '2');
});

const openssl = (() => {
  try {
    execFileSync('openssl', ['version']);
    return true;
  } catch {
    return false;
  }
})();

/** Creates an authority, and certificates for the broker and for a client. @param {string} folder */
function createCertificates(folder) {
  const run = (/** @type {string} */ command) => {
    execFileSync('openssl', command.split(' '), { cwd: folder, stdio: 'ignore' });
  };
  const key = 'req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes';
  run(`${key} -x509 -keyout ca.key -out ca.pem -subj /CN=authority`);
  run(`${key} -x509 -keyout other.key -out other.pem -subj /CN=other`);
  for (const name of ['broker', 'client']) {
    writeFileSync(join(folder, `${name}.ext`), 'subjectAltName=DNS:localhost,IP:127.0.0.1');
    run(`${key} -keyout ${name}.key -out ${name}.csr -subj /CN=${name}`);
    const signing = `-CA ca.pem -CAkey ca.key -CAcreateserial -extfile ${name}.ext`;
    run(`x509 -req -in ${name}.csr -out ${name}.pem ${signing}`);
  }
}

test(
  'TLS, with and without certificates of clients',
  { skip: !openssl && 'NOT TESTED: no openssl' },
  async (context) => {
    const broker = await configured(
      context,
      `
[[plugin]]
name = "open"
builtin = "tcp"
[plugin.config]
bind = "127.0.0.1:0"
[plugin.config.tls]
certificate = "FOLDER/broker.pem"
key = "FOLDER/broker.key"

[[plugin]]
name = "closed"
builtin = "tcp"
[plugin.config]
bind = "127.0.0.1:0"
[plugin.config.tls]
certificate = "FOLDER/broker.pem"
key = "FOLDER/broker.key"
client_ca = "FOLDER/ca.pem"
`,
      createCertificates,
    );
    const [open, closed] = broker.addresses('tls');
    const pem = (/** @type {string} */ name) => readFileSync(join(broker.folder, name), 'utf8');
    const ca = pem('ca.pem');

    for (const address of [`tls://${open}`, `tls://localhost:${open.split(':')[1]}`]) {
      const client = await connect(address, 'a', { tls: { ca } });
      const large = new Uint8Array(3_000_000).fill(7);
      await client.send('a', large);
      const { value } = await client.frames.next();
      assert.ok(value?.payload.length === large.length && value.payload.every((byte) => byte === 7));
      await client.close();
    }
    const implied = await connect(open, 'a', { tls: { ca: Buffer.from(ca) } });
    await implied.close();

    await assert.rejects(connect(`tls://${open}`, 'a'), { kind: 'tls', message: /certificate/ });
    await assert.rejects(connect(`tls://${open}`, 'a', { tls: { ca: pem('other.pem') } }), { kind: 'tls' });
    const renamed = { ca, servername: 'other.plant' };
    await assert.rejects(connect(`tls://${open}`, 'a', { tls: renamed }), {
      kind: 'tls',
      message: /other\.plant/,
    });
    await assert.rejects(connect(open, 'a', { timeout: 500 }), {
      kind: /** @type {any} */ (/not-a-broker|timeout/),
    });

    const own = { ca, cert: pem('client.pem'), key: pem('client.key') };
    const client = await connect(`tls://${closed}`, 'b', { tls: own });
    assert.equal(await client.roundTrip().then((time) => time >= 0), true);
    await client.close();
    await assert.rejects(connect(`tls://${closed}`, 'b', { tls: { ca } }), { kind: 'tls' });
    const foreign = { ca, cert: pem('other.pem'), key: pem('other.key') };
    await assert.rejects(connect(`tls://${closed}`, 'b', { tls: foreign }), { kind: 'tls' });
  },
);
