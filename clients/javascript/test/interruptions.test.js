/**
 * Every conversation is interrupted everywhere: the client is closed after each line, and the broker goes
 * away after each byte. All operations end with typed errors, nothing is unobserved, and no timer is left.
 * @module
 */

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';

import { interruptConversation, parseConversations } from './support/conversation.js';

const folder = new URL('../../../protocol/conformance/conversations/', import.meta.url);
const conversations = readdirSync(folder)
  .filter((name) => name.endsWith('.txt'))
  .flatMap((name) => parseConversations(readFileSync(new URL(name, folder), 'utf8')));

/** @type {unknown[]} */
const unobserved = [];
process.on('unhandledRejection', (reason) => unobserved.push(reason));

test('the client is closed after each line', async () => {
  for (const conversation of conversations) {
    for (let line = 1; line <= conversation.lines.length; line += 1) {
      await interruptConversation(conversation, { line, close: true });
    }
  }
  assert.deepEqual(unobserved, []);
});

test('operations are cancelled after each line', async () => {
  for (const conversation of conversations) {
    for (let line = 1; line <= conversation.lines.length; line += 1) {
      await interruptConversation(conversation, { line, cancel: true });
    }
  }
  assert.deepEqual(unobserved, []);
});

test('the broker goes away after each byte', async () => {
  let interruptions = 0;
  for (const conversation of conversations) {
    for (let byte = 0; byte < 400; byte += 1) {
      const reached = await interruptConversation(conversation, { byte });
      interruptions += 1;
      if (!reached) break;
    }
  }
  assert.ok(interruptions > 1000, `${interruptions}`);
  assert.deepEqual(unobserved, []);
});
