// The details of one client, from client.info, and its disconnection.

import { sentenceOf } from '../bus/bus.js';
import { bytes, count, quantity, toNumber } from '../format/numbers.js';
import { visible } from '../format/text.js';
import { h } from '../parts/dom.js';
import { ActionButton, busText, definitions } from '../parts/fields.js';
import { announce, confirmAction } from '../parts/notices.js';

/** Entries of a list that are shown. */
const MAX_SHOWN = 200;

/** Policies for full queues, as the configuration names them. @type {Record<string, string>} */
const POLICIES = {
  block: 'block: holds senders',
  disconnect: 'disconnect: disconnects the client',
  drop_newest: 'drop_newest: drops new messages',
  latest: 'latest: keeps the newest publication of each topic',
};

/**
 * Returns what a client has proved to be: names of its certificate, its token, or its systemd unit.
 * @param {any} info
 * @returns {string}
 */
export function identityOf(info) {
  if (info === undefined || info === null) return '';
  const certificates = Array.isArray(info.certificate_names) ? info.certificate_names : [];
  if (certificates.length > 0) return certificates.slice(0, 4).join(', ');
  if (typeof info.token === 'string') return `token ${info.token}`;
  return typeof info.unit === 'string' ? info.unit : '';
}

/**
 * @param {{ name: string, info: any, row: import('../model/client-table.js').ClientRow | undefined,
 *   context: import('../router.js').Context }} client
 * @returns {HTMLElement}
 */
export function showClient({ name, info, row, context }) {
  const actions = h(
    'div',
    { class: 'buttons' },
    explainButton(name, context),
    disconnectButton(name, context),
  );
  return h(
    'div',
    {},
    section('Traffic', traffic(info, row)),
    section('Identity', identity(info, row)),
    listSection('Subscriptions', info.subscriptions, info.subscription_count, 'It subscribes to no topic.'),
    listSection('Exclusions', info.exclusions, info.exclusion_count, ''),
    optionsSection(info.options),
    section('Denied operations', denied(info.denied)),
    listSection('Secondary clients', info.secondaries, undefined, ''),
    actions,
  );
}

/**
 * @param {any} info
 * @param {import('../model/client-table.js').ClientRow | undefined} row
 */
function traffic(info, row) {
  const policy = typeof info.overflow === 'string' ? info.overflow : '';
  const held = toNumber(info.held_seconds);
  return definitions([
    ['Sends', row && `${quantity(row.sends)} /s, ${bytes(row.sendsBytes)}/s`],
    ['Receives', row && `${quantity(row.receives)} /s, ${bytes(row.receivesBytes)}/s`],
    ['Sent in total', row && `${count(row.totals[0])}, ${bytes(row.totals[1])}`],
    ['Delivered in total', row && `${count(row.totals[2])}, ${bytes(row.totals[3])}`],
    ['Queued', `${row ? `${count(row.queue)} frames, ` : ''}${bytes(info.queue_bytes)}`],
    ['Full queue', POLICIES[policy] ?? visible(policy, 40)],
    ['Has held senders', `${quantity(held)} s${info.may_hold === false ? '; its budget is spent' : ''}`],
    ['Dropped', toNumber(info.dropped_frames) > 0 ? count(info.dropped_frames) : undefined],
  ]);
}

/**
 * @param {any} info
 * @param {import('../model/client-table.js').ClientRow | undefined} row
 */
function identity(info, row) {
  const numbers = [
    ['PID', info.pid],
    ['user', info.uid],
    ['group', info.gid],
  ].filter(([, value]) => value !== null && value !== undefined);
  const process = numbers.map(([key, value]) => `${key} ${visible(value, 20)}`).join(', ');
  const certificates = Array.isArray(info.certificate_names) ? info.certificate_names.slice(0, 20) : [];
  return definitions([
    ['Kind', visible(info.kind, 40)],
    ['Source', row && row.source !== '' ? busText(row.source) : undefined],
    ['Connected to', row && row.port !== '' ? busText(row.port) : undefined],
    ['Process', process],
    ['Unit', typeof info.unit === 'string' ? busText(info.unit) : undefined],
    ['Certificate', certificates.length > 0 ? busText(certificates.join(', '), 400) : undefined],
    ['Token', typeof info.token === 'string' ? busText(info.token) : undefined],
  ]);
}

/**
 * @param {string} title
 * @param {Node | undefined} content
 */
function section(title, content) {
  if (content === undefined) return null;
  return h('section', {}, h('h3', {}, title), content);
}

/**
 * @param {string} title
 * @param {unknown} list
 * @param {unknown} total
 * @param {string} nothing What an empty list says; without it the section is left out.
 */
function listSection(title, list, total, nothing) {
  if (!Array.isArray(list)) return null;
  if (list.length === 0) return nothing === '' ? null : section(title, h('p', { class: 'muted' }, nothing));
  const shown = list.slice(0, MAX_SHOWN).map((item) => h('li', {}, busText(item, 300)));
  const number = Math.max(toNumber(total), list.length);
  if (number > shown.length)
    shown.push(h('li', { class: 'muted' }, `and ${count(number - shown.length)} more`));
  return section(`${title} (${count(number)})`, h('ul', { class: 'bus-list' }, ...shown));
}

/** @param {unknown} options */
function optionsSection(options) {
  if (!Array.isArray(options) || options.length === 0) return null;
  const head = ['Subscription with options', 'Missed', 'Replaced', 'Pending'];
  const rows = options.slice(0, MAX_SHOWN).map((option) => {
    const filter = option?.filter === '' ? 'all without options' : option?.filter;
    const numbers = [option?.missed, option?.replaced, option?.pending];
    return h(
      'tr',
      {},
      h('th', { scope: 'row' }, busText(filter, 200)),
      ...numbers.map((value) => h('td', { class: 'number' }, count(value))),
    );
  });
  const cells = head.map((title, at) => h('th', { scope: 'col', class: at > 0 ? 'number' : null }, title));
  return h('section', {}, h('table', {}, h('thead', {}, h('tr', {}, ...cells)), h('tbody', {}, ...rows)));
}

/** @param {any} kinds */
function denied(kinds) {
  const entries = typeof kinds === 'object' && kinds !== null ? Object.entries(kinds) : [];
  if (entries.length === 0) return undefined;
  return definitions(entries.slice(0, 20).map(([kind, number]) => [visible(kind, 40), count(number)]));
}

/**
 * @param {string} name
 * @param {import('../router.js').Context} context
 */
function explainButton(name, context) {
  return new ActionButton('Explain', () => context.go('explain', { name })).element;
}

/**
 * @param {string} name
 * @param {import('../router.js').Context} context
 */
function disconnectButton(name, { bus, rights }) {
  const button = new ActionButton(
    'Disconnect',
    async () => {
      const shown = visible(name, 80);
      const text = `The broker disconnects ${shown} and its secondary clients. It can connect again.`;
      if (
        !(await confirmAction({
          title: 'Disconnect the client?',
          text,
          action: 'Disconnect',
        }))
      )
        return;
      try {
        await bus.call('client.kick', { name });
        announce(`${shown} is disconnected.`);
      } catch (error) {
        announce(`${shown} is not disconnected: ${sentenceOf(error)}`, 'failed');
      }
    },
    'danger',
  );
  button.refuse(rights.refusal('client.kick'));
  return button.element;
}
