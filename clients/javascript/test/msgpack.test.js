/**
 * The msgpack codec against the package @msgpack/msgpack, and with damaged input.
 * @module
 */

import assert from 'node:assert/strict';
import test from 'node:test';

import { decode as referenceDecode, encode as referenceEncode } from '@msgpack/msgpack';

import { decode, ElbusError, encode, Extension } from '../src/index.js';
import { hex } from './support/bytes.js';
import { randomSource } from './support/random.js';

const values = [
  null,
  true,
  false,
  0,
  1,
  127,
  128,
  255,
  256,
  65535,
  65536,
  4294967295,
  4294967296,
  Number.MAX_SAFE_INTEGER,
  -1,
  -32,
  -33,
  -128,
  -129,
  -32768,
  -32769,
  -2147483648,
  -2147483649,
  Number.MIN_SAFE_INTEGER,
  0.5,
  -0.1,
  1e300,
  Infinity,
  -Infinity,
  NaN,
  '',
  'a',
  'é€😀',
  'x'.repeat(31),
  'x'.repeat(32),
  'x'.repeat(255),
  'x'.repeat(256),
  'é'.repeat(40_000),
  new Uint8Array(0),
  new Uint8Array(255),
  new Uint8Array(256),
  new Uint8Array(70_000).fill(7),
  [],
  [1, [2, [3, null]]],
  Array.from({ length: 15 }, (_, index) => index),
  Array.from({ length: 16 }, (_, index) => index),
  Array.from({ length: 70_000 }, (_, index) => index),
  {},
  { a: 1, b: { c: [true] } },
  Object.fromEntries(Array.from({ length: 15 }, (_, index) => [`k${index}`, index])),
  Object.fromEntries(Array.from({ length: 70_000 }, (_, index) => [`k${index}`, index])),
  new Date(0),
  new Date(1_700_000_000_123),
  new Date(4294967295000),
  new Date(4294967296000),
  new Date(17179869184000),
  new Date(-1),
];

test('values are the same as with the reference', () => {
  for (const value of values) {
    const [ours, theirs] = [encode(value), referenceEncode(value)];
    // the reference has a shorter form for times with a fraction of a second
    if (!(value instanceof Date)) assert.equal(hex(ours), hex(theirs));
    assert.deepEqual(decode(ours), value);
    assert.deepEqual(decode(theirs), value);
    assert.deepEqual(referenceDecode(ours), value);
  }
});

test('what the reference does not represent', () => {
  for (const value of [2n ** 53n, 2n ** 64n - 1n, -(2n ** 63n), -(2n ** 53n)])
    assert.equal(decode(encode(value)), value);
  assert.equal(decode(encode(5n)), 5);
  assert.equal(hex(encode(-0)), 'cb8000000000000000');
  const map = new Map(
    /** @type {[unknown, unknown][]} */ ([
      ['a', 1],
      [2, 'b'],
      [null, [new Map()]],
    ]),
  );
  assert.deepEqual(
    decode(encode(map)),
    new Map(
      /** @type {[unknown, unknown][]} */ ([
        ['a', 1],
        [2, 'b'],
        [null, [{}]],
      ]),
    ),
  );
  for (const length of [0, 1, 2, 3, 4, 8, 16, 17, 300, 70_000]) {
    const extension = new Extension(7, new Uint8Array(length).fill(1));
    assert.deepEqual(decode(encode(extension)), extension);
  }
  assert.equal(hex(encode({ a: undefined, b: [undefined] })), '81a16291c0');
  assert.deepEqual(decode(encode({ toJSON: () => 'json' })), 'json');
  assert.deepEqual(decode(encode(new Uint16Array([1, 2]))), new Uint8Array([1, 0, 2, 0]));
  assert.deepEqual(decode(Uint8Array.of(0xca, 0x3f, 0x80, 0, 0)), 1);
});

test('keys cannot change prototypes', () => {
  const decoded = decode(encode(new Map([['__proto__', { polluted: true }]])));
  assert.equal(Object.getPrototypeOf(decoded), Object.prototype);
  assert.deepEqual(Object.keys(decoded), ['__proto__']);
  assert.equal(/** @type {any} */ ({}).polluted, undefined);
});

test('values that cannot be encoded are typed errors', () => {
  const circular = /** @type {any} */ ({});
  circular.self = circular;
  const values = [
    () => {},
    Symbol('x'),
    circular,
    [circular],
    1n << 64n,
    -(1n << 64n),
    new Date(NaN),
    new Extension(200, new Uint8Array(1)),
  ];
  for (const value of values) assert.throws(() => encode(value), ElbusError);
});

test('damaged input is a typed error, without memory for what it claims', () => {
  const damaged = [
    [],
    [0xc1],
    [0x91],
    [0x81, 0xa1, 0x61],
    [0xa2, 0x61],
    [0xa1, 0xff],
    [0xdd, 0xff, 0xff, 0xff, 0xff],
    [0xdf, 0xff, 0xff, 0xff, 0xff],
    [0xdb, 0xff, 0xff, 0xff, 0xff],
    [0xc6, 0xff, 0xff, 0xff, 0xff],
    [0xc9, 0xff, 0xff, 0xff, 0xff, 0xff],
    [0xd9],
    [0xcf, 0],
    [0x01, 0x02],
    [0xd4, 0xff, 0],
    Array.from({ length: 1000 }, () => 0x91),
    Array.from({ length: 100_000 }, () => 0x81),
  ];
  for (const bytes of damaged) {
    assert.throws(() => decode(Uint8Array.from(bytes)), { kind: 'conversion' });
  }
});

test('random bytes never cause another error', () => {
  const random = randomSource(7);
  for (let round = 0; round < 20_000; round += 1) {
    const bytes = Uint8Array.from({ length: random(40) }, () => random(256));
    try {
      encode(decode(bytes));
    } catch (error) {
      assert.ok(error instanceof ElbusError, `${hex(bytes)}: ${error}`);
    }
  }
});

test('a set becomes an array, and a promise within a value is an error', () => {
  assert.deepEqual(decode(encode(new Set(['a', 1]))), ['a', 1]);
  assert.deepEqual(decode(encode({ empty: new Set() })), { empty: [] });
  assert.throws(() => encode({ later: Promise.resolve(1) }), {
    kind: 'conversion',
    message: /await it first/,
  });
});
