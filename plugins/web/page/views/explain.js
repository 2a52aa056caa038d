// Who would get a message, or what stops it and where that is configured: the method explain as a form.

import { sentenceOf } from '../bus/bus.js';
import { count, toNumber } from '../format/numbers.js';
import { visible } from '../format/text.js';
import { printValue } from '../format/value.js';
import { fill, h } from '../parts/dom.js';
import { busText, definitions, field, select, textInput } from '../parts/fields.js';

const MAX_SHOWN = 500;
/** Actions with what their target is. @type {[string, string, string][]} */
const ACTIONS = [
  ['publish', 'publish to a topic', 'Topic'],
  ['send', 'send a message to a client', 'Name of the receiver'],
  ['broadcast', 'broadcast to clients', 'Mask of names'],
  ['subscribe', 'subscribe to topics', 'Filter'],
  ['call', 'call a method of the broker', 'Method'],
];
/** Parts of the answer that have a place of their own. */
const SHOWN = new Set([
  'allowed',
  'why',
  'rule',
  'place',
  'registered',
  'recipients',
  'recipient_count',
  'options',
  'interceptors',
  'full',
]);

/** @type {import('../router.js').View} */
export const explainView = {
  id: 'explain',
  title: 'Explain',
  create: (context) => {
    const { bus, parameters, signal } = context;
    const name = textInput({
      class: 'bus',
      required: true,
      value: parameters.get('name') ?? bus.name,
    });
    const target = textInput({
      class: 'bus',
      value: parameters.get('target') ?? '',
    });
    const targetField = field('Topic', target);
    const action = select(
      ACTIONS.map(([value, text]) => [value, text]),
      () => showLabel(),
    );
    const given = parameters.get('action');
    if (ACTIONS.some(([value]) => value === given)) action.value = given ?? '';
    const label = targetField.querySelector('label');
    const showLabel = () => {
      const found = ACTIONS.find(([value]) => value === action.value);
      if (label !== null && found !== undefined) label.textContent = found[2];
    };
    showLabel();
    const answer = h('section', {
      class: 'panel answer',
      'aria-live': 'polite',
      hidden: true,
    });
    const ask = async () => {
      const question = {
        action: action.value,
        name: name.value,
        target: target.value,
      };
      context.remember(question);
      try {
        showAnswer(answer, await bus.call('explain', question, signal));
      } catch (error) {
        if (signal.aborted) return;
        fill(answer, h('p', { class: 'verdict denied' }, 'No answer'), h('p', {}, sentenceOf(error)));
      }
      answer.hidden = false;
    };
    const form = h(
      'form',
      {
        class: 'panel explain',
        onsubmit: (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          ask();
        },
      },
      field('Client', name, 'It may be one that is not connected.'),
      field('wants to', action),
      targetField,
      h('button', { type: 'submit', class: 'primary' }, 'Explain'),
    );
    if (given !== null) ask();
    return h('div', { class: 'view' }, h('div', { class: 'columns' }, form, answer));
  },
};

/**
 * @param {HTMLElement} element
 * @param {any} answer
 */
function showAnswer(element, answer) {
  const isAllowed = answer?.allowed === true;
  const recipients = Array.isArray(answer?.recipients) ? answer.recipients : [];
  const total = toNumber(answer?.recipient_count);
  const others = Object.entries(answer ?? {}).filter(([key, value]) => !SHOWN.has(key) && hasContent(value));
  fill(
    element,
    h('p', { class: `verdict ${isAllowed ? 'allowed' : 'denied'}` }, isAllowed ? 'Allowed' : 'Denied'),
    definitions([
      ['Why', visible(answer?.why, 500)],
      ['Rule', answer?.rule ? busText(answer.rule, 500) : undefined],
      ['Place', answer?.place ? busText(answer.place, 300) : undefined],
      ['Client', answer?.registered === true ? 'connected' : 'not connected: its user is unknown'],
      ...others.map(([key, value]) => /** @type {[string, Node]} */ ([titleOf(key), pre(value)])),
    ]),
    isAllowed ? h('h2', { class: 'minor' }, `Recipients (${count(total)})`) : null,
    recipients.length > 0 ? recipientList(recipients, total) : null,
    optionTable(answer?.options),
    interceptorTable(answer?.interceptors),
    fullTable(answer?.full),
  );
}

/** @param {unknown} value */
function hasContent(value) {
  return !(value === null || value === undefined || (Array.isArray(value) && value.length === 0));
}

/** @param {string} key */
function titleOf(key) {
  const text = visible(key.replaceAll('_', ' '), 30);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** @param {unknown} value */
function pre(value) {
  if (typeof value === 'string') return busText(value, 500);
  return h('pre', { class: 'value' }, printValue(value, { max: 4000 }));
}

/**
 * @param {unknown[]} recipients
 * @param {number} total
 */
function recipientList(recipients, total) {
  const items = recipients.slice(0, MAX_SHOWN).map((name) => h('li', {}, busText(name)));
  const left = total - items.length;
  if (left > 0) items.push(h('li', { class: 'muted' }, `and ${count(left)} more`));
  return h('ul', { class: 'bus-list recipients' }, ...items);
}

/** @param {unknown} options */
function optionTable(options) {
  return table(['Client', 'Subscription with options', 'Gets'], options, (option) => [
    busText(option?.client),
    busText(option?.filter === '' ? 'overflow = "latest"' : option?.filter),
    option?.group ? `one member of ${visible(option.group, 60)}` : 'each',
  ]);
}

/** @param {unknown} interceptors */
function interceptorTable(interceptors) {
  return table(['Sees it first', 'What it can do', 'Place'], interceptors, (one) => [
    busText(one?.plugin),
    effectOf(one?.serves === true, one?.on_failure === 'closed'),
    one?.place ? busText(one.place, 300) : '',
  ]);
}

/**
 * @param {boolean} serves
 * @param {boolean} isClosed
 */
function effectOf(serves, isClosed) {
  if (serves) return 'lets it pass, rejects or changes it, by its content';
  return isClosed ? 'does not serve: rejects everything' : 'does not serve: everything passes';
}

/** What happens to messages for a full queue, by policy. @type {Record<string, string>} */
const FULL = {
  block: 'the sender waits',
  disconnect: 'it is disconnected',
  drop_newest: 'the message is refused',
  latest: 'it gets the newest value of each topic later',
};

/** @param {unknown} full */
function fullTable(full) {
  return table(['Full queue', 'Policy'], full, (one) => {
    const meaning = (Object.hasOwn(FULL, one?.overflow) && FULL[one.overflow]) || 'unknown';
    return [busText(one?.client), `${visible(one?.overflow, 30)}: ${meaning}`];
  });
}

/**
 * @param {string[]} head
 * @param {unknown} items
 * @param {(item: any) => (Node | string)[]} cellsOf
 */
function table(head, items, cellsOf) {
  if (!Array.isArray(items) || items.length === 0) return null;
  const rows = items
    .slice(0, MAX_SHOWN)
    .map((item) => h('tr', {}, ...cellsOf(item).map((cell) => h('td', {}, cell))));
  const titles = head.map((text) => h('th', { scope: 'col' }, text));
  return h('table', {}, h('thead', {}, h('tr', {}, ...titles)), h('tbody', {}, ...rows));
}
