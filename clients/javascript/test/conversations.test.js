/**
 * All conversations of protocol/conformance: what every client does and reports. Each is run with what the
 * broker writes in one piece, in pieces of a few bytes, and one byte at a time.
 * @module
 */

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';

import { parseConversations, runConversation } from './support/conversation.js';

const folder = new URL('../../../protocol/conformance/conversations/', import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith('.txt'));
assert.ok(files.length >= 6);

for (const file of files) {
  const conversations = parseConversations(readFileSync(new URL(file, folder), 'utf8'));
  assert.ok(conversations.length > 0);
  for (const [name, step] of /** @type {[string, number][]} */ ([
    ['whole', Infinity],
    ['in pieces', 7],
    ['byte by byte', 1],
  ])) {
    for (const conversation of conversations) {
      test(`${file}: ${conversation.title} (${name})`, () => runConversation(conversation, step));
    }
  }
}
