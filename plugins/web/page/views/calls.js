// Calls a method by hand, and lists recent slow calls and errors.

import { sentenceOf } from '../bus/bus.js';
import { poll } from '../bus/poll.js';
import { clock, span } from '../format/numbers.js';
import { visible } from '../format/text.js';
import { fill, h } from '../parts/dom.js';
import { busText } from '../parts/fields.js';
import { emptyState, Notice } from '../parts/notices.js';
import { callForm } from './call-form.js';

const INTERVAL = 3000;
const MAX_ROWS = 50;

/** @type {import('../router.js').View} */
export const callsView = {
  id: 'calls',
  title: 'Calls',
  create: (context) => {
    const { bus, signal } = context;
    const slow = h('section', { class: 'panel', 'aria-label': 'Slow calls' });
    const errors = h('section', { class: 'panel', 'aria-label': 'Errors' });
    const notice = new Notice();
    poll(
      signal,
      INTERVAL,
      async () => {
        const answer = await bus.call('web.calls', {}, signal);
        notice.clear();
        const none = 'Calls between clients appear here while the page is open.';
        showCalls(slow, 'Slow calls', answer?.slow, ['No slow calls', none]);
        showCalls(errors, 'Errors', answer?.errors, ['No failed calls', none]);
      },
      (error) => notice.show(`No recent calls: ${sentenceOf(error)}`),
    );
    const recent = h('div', { class: 'recent' }, notice.element, slow, errors);
    return h('div', { class: 'view' }, h('div', { class: 'columns' }, callForm(context), recent));
  },
};

/**
 * @param {HTMLElement} element
 * @param {string} title
 * @param {unknown} calls
 * @param {[string, string]} nothing
 */
function showCalls(element, title, calls, nothing) {
  const list = Array.isArray(calls) ? calls.slice(0, MAX_ROWS) : [];
  if (list.length === 0) {
    fill(element, h('h2', {}, title), emptyState(...nothing));
    return;
  }
  const rows = list.map((call) => {
    const error =
      call?.error === undefined || call.error === null ? null : visible(errorText(call.error), 160);
    return h(
      'tr',
      {},
      h('td', { class: 'time' }, clock(call?.at_ms)),
      h('td', {}, busText(call?.caller, 60)),
      h('td', {}, busText(call?.target, 60)),
      h('td', {}, busText(call?.method, 60), error && h('div', { class: 'bad' }, error)),
      h('td', { class: 'number' }, call?.duration_ms === null ? '' : span(call?.duration_ms)),
    );
  });
  const head = ['Time', 'Caller', 'Target', 'Method', 'Took'].map((text, at) =>
    h('th', { scope: 'col', class: at === 4 ? 'number' : null }, text),
  );
  const table = h('table', {}, h('thead', {}, h('tr', {}, ...head)), h('tbody', {}, ...rows));
  fill(element, h('h2', {}, title), h('div', { class: 'scroll', tabindex: 0 }, table));
}

/** @param {any} error A text, or `{code, text}`. */
function errorText(error) {
  if (typeof error !== 'object') return String(error);
  return [error.code, error.text]
    .filter((part) => part !== undefined && part !== null && part !== '')
    .join(': ');
}
