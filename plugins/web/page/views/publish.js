// The form that publishes by hand: text, msgpack written as JSON, or bytes in hexadecimal.

import { sentenceOf } from '../bus/bus.js';
import { encode } from '../elbus.js';
import { visible } from '../format/text.js';
import { h } from '../parts/dom.js';
import { field, select, textInput } from '../parts/fields.js';
import { announce, Notice } from '../parts/notices.js';

/**
 * @param {import('../bus/bus.js').Bus} bus
 * @returns {{ element: HTMLElement, toggle: HTMLElement, open: (topic: string) => void }}
 */
export function publishForm(bus) {
  const topic = textInput({ class: 'bus', required: true });
  const payload = h('textarea', { rows: 3, spellcheck: 'false', class: 'bus' });
  const format = select([
    ['text', 'Text or JSON'],
    ['msgpack', 'msgpack, written as JSON'],
    ['hex', 'Bytes in hexadecimal'],
  ]);
  const notice = new Notice();
  const submit = async (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    notice.clear();
    try {
      await bus.publish(topic.value, bytesOf(payload.value, format.value));
      announce(`Published to ${visible(topic.value, 80)}.`);
    } catch (error) {
      notice.show(`Not published: ${sentenceOf(error)}`);
    }
  };
  const element = h(
    'form',
    {
      class: 'publish panel',
      hidden: true,
      onsubmit: submit,
      'aria-label': 'Publish',
    },
    field('Topic', topic),
    field('Payload', payload),
    field('The payload is', format),
    h('button', { type: 'submit', class: 'primary' }, 'Publish'),
    notice.element,
  );
  const show = (/** @type {boolean} */ isShown) => {
    element.hidden = !isShown;
    toggle.setAttribute('aria-expanded', String(isShown));
  };
  const click = () => {
    show(element.hidden === true);
    if (!element.hidden) topic.focus();
  };
  const toggle = h('button', { type: 'button', 'aria-expanded': 'false', onclick: click }, 'Publish');
  return {
    element,
    toggle,
    open: (name) => {
      topic.value = name;
      show(true);
      payload.focus();
    },
  };
}

/**
 * Returns the bytes of a payload as it was written.
 * @param {string} text
 * @param {string} format
 * @returns {Uint8Array}
 */
function bytesOf(text, format) {
  if (format === 'msgpack') return encode(parseJson(text));
  if (format === 'text') return new TextEncoder().encode(text);
  const digits = text.replaceAll(/\s/g, '');
  if (!/^([0-9a-f]{2})*$/i.test(digits))
    throw new Error('expected pairs of hexadecimal digits, such as "0a ff"');
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/**
 * @param {string} text
 * @returns {unknown}
 */
export function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`not JSON: ${error instanceof Error ? error.message : error}`);
  }
}
