// The first view: plots of the last 15 minutes, and the clients that matter most.

import { sentenceOf } from '../bus/bus.js';
import { poll } from '../bus/poll.js';
import { Plot } from '../charts/plot.js';
import { age, bytes, count, quantity, toNumber } from '../format/numbers.js';
import { visible } from '../format/text.js';
import { History } from '../model/history.js';
import { fill, h } from '../parts/dom.js';
import { busText } from '../parts/fields.js';
import { emptyState, Notice } from '../parts/notices.js';

/** The range of the plots, in milliseconds. */
const RANGE = 15 * 60 * 1000;
const INTERVAL = 2000;
const TOP_INTERVAL = 3000;
const TOP = 5;

/**
 * A plot: its series are those of `web.history` with their names.
 * @typedef {object} Panel
 * @property {string} title
 * @property {string} about
 * @property {string} [unit]
 * @property {boolean} [isBinary]
 * @property {(value: number) => string} format
 * @property {[string, string][]} series
 */

/** @type {Panel[]} */
const PANELS = [
  {
    title: 'Messages',
    about: 'Messages that the broker receives and delivers, per second',
    unit: ' /s',
    format: quantity,
    series: [
      ['messages_in', 'in'],
      ['messages_out', 'out'],
    ],
  },
  {
    title: 'Bytes',
    about: 'Bytes of these messages, per second',
    unit: '/s',
    format: bytes,
    isBinary: true,
    series: [
      ['bytes_in', 'in'],
      ['bytes_out', 'out'],
    ],
  },
  {
    title: 'Queued',
    about: 'Bytes that wait for clients to read them',
    format: bytes,
    isBinary: true,
    series: [['queued_bytes', 'queued']],
  },
  {
    title: 'Clients',
    about: 'Registered clients',
    format: quantity,
    series: [['clients', 'clients']],
  },
  {
    title: 'Refused',
    about: 'Messages that full queues have refused, per second',
    unit: ' /s',
    format: quantity,
    series: [['refused', 'refused']],
  },
  {
    title: 'Senders held',
    about: 'Seconds for which receivers have held senders, per second',
    unit: ' s/s',
    format: quantity,
    series: [['held_seconds', 'held']],
  },
  {
    title: 'Missed',
    about: 'Publications that subscriptions with options have dropped, per second',
    unit: ' /s',
    format: quantity,
    series: [['missed', 'missed']],
  },
];

/** What the reasons of `web.top` mean. @type {Record<string, string>} */
const REASONS = {
  holds_senders: 'Holds senders',
  queue: 'Long queue',
  sends: 'Sends most',
  receives: 'Receives most',
  refused: 'Messages refused',
};

/** @type {import('../router.js').View} */
export const overviewView = {
  id: 'overview',
  title: 'Overview',
  create: (context) => {
    const { bus, signal } = context;
    const notice = new Notice();
    const history = new History();
    const plots = PANELS.map((panel) => ({
      panel,
      plot: new Plot({ ...panel, signal }),
    }));
    const health = h('dl', { class: 'health' });
    const top = h('section', {
      class: 'panel top',
      'aria-label': 'Clients that matter most',
    });
    poll(
      signal,
      INTERVAL,
      async () => {
        await history.fetch(bus, signal);
        notice.clear();
        const to = history.times[history.times.length - 1] ?? Date.now();
        for (const { panel, plot } of plots) {
          const series = panel.series.map(([name, title]) => ({
            name: title,
            values: history.series(name),
          }));
          plot.set({ times: history.times, from: to - RANGE, to, series });
        }
      },
      (error) => notice.show(`No history: ${sentenceOf(error)}`),
    );
    poll(
      signal,
      TOP_INTERVAL,
      async () => {
        const [answer, state] = await Promise.all([
          bus.call('web.top', {}, signal).catch((error) => sentenceOf(error)),
          bus.call('health', undefined, signal).catch(() => undefined),
        ]);
        showTop(top, answer, context);
        if (state !== undefined) showHealth(health, state);
      },
      () => {},
    );
    const grid = h('div', { class: 'plots' }, ...plots.map(({ plot }) => plot.element), top);
    return h('div', { class: 'view' }, health, notice.element, grid);
  },
};

/**
 * @param {HTMLElement} element
 * @param {any} health
 */
function showHealth(element, health) {
  const queued = toNumber(health.queued_bytes);
  const limit = toNumber(health.max_queued_bytes);
  const facts = [
    ['Up', age(Math.max(toNumber(health.uptime_seconds), 1) * 1000)],
    ['Clients', count(health.clients)],
    ['Queued', limit > 0 ? `${bytes(queued)} of ${bytes(limit)}` : bytes(queued)],
    ['Refused', count(health.refused_frames)],
    ['Denied', count(health.denied)],
  ];
  fill(element, ...facts.map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', {}, value))));
}

/**
 * @param {HTMLElement} element
 * @param {unknown} answer The result of `web.top`, or the sentence why there is none.
 * @param {import('../router.js').Context} context
 */
function showTop(element, answer, context) {
  const title = h('h2', {}, 'Clients that matter most');
  if (typeof answer === 'string') {
    fill(element, title, h('p', { class: 'notice' }, answer));
    return;
  }
  const clients = Array.isArray(answer) ? answer.slice(0, TOP) : [];
  if (clients.length === 0) {
    const advice = 'Clients appear here when they hold senders, have long queues, or send and receive much.';
    fill(element, title, emptyState('The bus is quiet', advice));
    return;
  }
  const focused =
    document.activeElement instanceof HTMLElement ? document.activeElement.dataset.client : undefined;
  const rows = clients.map((/** @type {any} */ client) => {
    const name = typeof client?.name === 'string' ? client.name : '';
    const open = (/** @type {MouseEvent} */ event) => {
      event.preventDefault();
      context.go('clients', { name });
    };
    const link = h('a', { href: '#/clients', onclick: open, 'data-client': name }, busText(name, 60));
    const reason = String(client?.reason ?? '');
    return h(
      'li',
      {},
      h(
        'span',
        { class: `reason-badge ${REASONS[reason] ? reason : ''}` },
        REASONS[reason] ?? visible(reason, 40),
      ),
      link,
      h('span', { class: 'detail' }, visible(client?.detail, 200)),
    );
  });
  fill(element, title, h('ol', { class: 'top-list' }, ...rows));
  if (focused === undefined) return;
  const links = [...element.querySelectorAll('a')];
  links.find((link) => link.dataset.client === focused)?.focus();
}
