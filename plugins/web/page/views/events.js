// What has happened: connects, disconnects with their reasons, stalls, reloads, plugins, and the log.

import { sentenceOf } from '../bus/bus.js';
import { poll } from '../bus/poll.js';
import { TimeLine } from '../charts/time-line.js';
import { count, dateAndTime, shortTime } from '../format/numbers.js';
import { visible } from '../format/text.js';
import { EventLog } from '../model/event-log.js';
import { h, setAttribute, setText } from '../parts/dom.js';
import { textInput } from '../parts/fields.js';
import { emptyState, Notice } from '../parts/notices.js';
import { VirtualTable } from '../parts/virtual-table.js';

/** @typedef {import('../model/event-log.js').BusEvent} BusEvent */

const INTERVAL = 2000;
/** The kinds of events with their names; other kinds are shown as they are. @type {[string, string][]} */
export const EVENT_KINDS = [
  ['connect', 'Connect'],
  ['disconnect', 'Disconnect'],
  ['stall', 'Stall'],
  ['refused', 'Refused'],
  ['missed', 'Missed'],
  ['reload', 'Reload'],
  ['plugin', 'Plugin'],
  ['log', 'Log'],
];

/** @type {import('../router.js').View} */
export const eventsView = {
  id: 'events',
  title: 'Events',
  create: (context) => new EventsView(context).element,
};

class EventsView {
  #log = new EventLog();
  #hidden = new Set();
  #isLoaded = false;
  #search = textInput({
    type: 'search',
    class: 'filter',
    placeholder: 'part of a name or text',
    'aria-label': 'Filter by name or text',
  });
  #summary = h('span', { class: 'summary' });
  #notice = new Notice();
  #timeLine;
  #table;

  /** @param {import('../router.js').Context} context */
  constructor({ bus, signal, parameters }) {
    this.#timeLine = new TimeLine(signal);
    this.#table = new VirtualTable({
      label: 'Events, newest first',
      columns: columns(),
      key: (/** @type {BusEvent} */ event) => String(event.number),
      open: (event) => this.#showText(event),
    });
    this.#search.value = parameters.get('text') ?? '';
    this.#search.addEventListener('input', () => this.#show());
    const tools = h('div', { class: 'toolbar' }, this.#search, this.#choices(), this.#summary);
    this.element = h(
      'div',
      { class: 'view fill' },
      tools,
      this.#notice.element,
      this.#timeLine.element,
      this.#table.element,
      this.#whole,
    );
    poll(
      signal,
      INTERVAL,
      async () => {
        await this.#log.fetch(bus, signal);
        this.#isLoaded = true;
        this.#notice.clear();
        this.#show();
      },
      (error) => this.#notice.show(`No events: ${sentenceOf(error)}`),
    );
  }

  /** The text of the selected event, which the table cuts. */
  #whole = h('p', { class: 'whole bus', hidden: true, role: 'status' });

  /** @param {BusEvent} event */
  #showText(event) {
    this.#whole.hidden = false;
    setText(
      this.#whole,
      `${dateAndTime(event.at)}  ${visible(event.subject, 300)}  ${visible(event.text, 1000)}`,
    );
  }

  #choices() {
    const boxes = EVENT_KINDS.map(([kind, name]) => {
      const changed = (/** @type {Event} */ event) => {
        if (/** @type {HTMLInputElement} */ (event.target).checked) this.#hidden.delete(kind);
        else this.#hidden.add(kind);
        this.#show();
      };
      const box = h('input', {
        type: 'checkbox',
        checked: true,
        onchange: changed,
      });
      return h('label', { class: 'choice' }, box, name);
    });
    return h('fieldset', { class: 'choices' }, h('legend', { class: 'hidden' }, 'Kinds'), ...boxes);
  }

  #show() {
    const { events, missed } = this.#log;
    const part = this.#search.value.trim().toLowerCase();
    const isIn = (/** @type {string} */ text) => text.toLowerCase().includes(part);
    const shown = events.filter(
      (event) => !this.#hidden.has(event.kind) && (part === '' || isIn(event.subject) || isIn(event.text)),
    );
    const lanes = EVENT_KINDS.filter(([kind]) => !this.#hidden.has(kind)).map(([kind, name]) => {
      return {
        kind,
        name,
        times: shown.filter((event) => event.kind === kind).map(({ at }) => at),
      };
    });
    this.#timeLine.set(lanes);
    this.#table.setRows(shown.reverse());
    const older = missed > 0 ? ` · ${count(missed)} older or missed ones are not shown` : '';
    if (this.#isLoaded) setText(this.#summary, `${count(shown.length)} events${older}`);
    if (shown.length > 0 || !this.#isLoaded) this.#table.setEmpty(undefined);
    else if (events.length === 0) {
      const advice = 'Connects, disconnects, stalls, reloads and warnings appear here as they happen.';
      this.#table.setEmpty(emptyState('Nothing has happened yet', advice));
    } else this.#table.setEmpty(emptyState('No event matches', 'Clear the filter, or choose more kinds.'));
  }
}

/** @returns {import('../parts/virtual-table.js').Column<BusEvent>[]} */
function columns() {
  const names = new Map(EVENT_KINDS);
  return [
    {
      id: 'time',
      title: 'Time',
      width: 100,
      text: (event) => shortTime(event.at),
    },
    {
      id: 'kind',
      title: 'Kind',
      width: 96,
      text: () => '',
      render: (cell, event) => {
        const mark = cell.firstElementChild ?? cell.appendChild(h('span', { class: 'event-kind' }));
        const kind = names.has(event.kind) ? event.kind : 'other';
        setAttribute(mark, 'data-kind', kind);
        setAttribute(mark, 'data-level', event.kind === 'log' ? event.level : undefined);
        const level = event.kind === 'log' && event.level !== '' ? event.level : undefined;
        setText(mark, visible(level ?? names.get(event.kind) ?? event.kind, 14));
      },
    },
    {
      id: 'subject',
      title: 'Client or plugin',
      width: 130,
      grow: 1,
      text: (event) => event.subject,
      render: (cell, event) => renderBusText(cell, event.subject),
    },
    {
      id: 'text',
      title: 'What',
      width: 150,
      grow: 3,
      rank: 1,
      text: (event) => event.text,
      render: (cell, event) => renderBusText(cell, event.text),
    },
  ];
}

/**
 * @param {HTMLElement} cell
 * @param {string} text
 */
function renderBusText(cell, text) {
  const isolated = cell.firstElementChild ?? cell.appendChild(h('bdi'));
  setText(isolated, visible(text, 400));
}
