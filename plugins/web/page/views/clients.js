// All clients in a table with rates; details of one beside it.

import { isInterruption, sentenceOf } from '../bus/bus.js';
import { poll } from '../bus/poll.js';
import { bytes, count, rate } from '../format/numbers.js';
import { visible } from '../format/text.js';
import { ClientDetails } from '../model/client-details.js';
import { ClientTable } from '../model/client-table.js';
import { nameFilter } from '../model/mask.js';
import { h, setText } from '../parts/dom.js';
import { busText, textInput } from '../parts/fields.js';
import { emptyState, Notice } from '../parts/notices.js';
import { Split } from '../parts/split.js';
import { VirtualTable } from '../parts/virtual-table.js';
import { identityOf, showClient } from './client-details.js';

/** @typedef {import('../model/client-table.js').ClientRow} ClientRow */

const INTERVAL = 2000;
/** The part of the time that answers may take: long lists are requested less often. */
const LOAD = 0.04;
const DETAILS_INTERVAL = 2000;

/** @type {import('../router.js').View} */
export const clientsView = {
  id: 'clients',
  title: 'Clients',
  create: (context) => new ClientsView(context).element,
};

class ClientsView {
  #context;
  #clients = new ClientTable();
  #details;
  #filter = textInput({
    type: 'search',
    class: 'filter',
    placeholder: 'plant.* or a part of the name',
    'aria-label': 'Filter by name or mask',
  });
  #summary = h('span', { class: 'summary', role: 'status' });
  #notice = new Notice();
  #table;
  #split;
  /** The client whose details are shown. @type {string | undefined} */
  #shown;
  #cost = 0;
  #isLoaded = false;

  /** @param {import('../router.js').Context} context */
  constructor(context) {
    this.#context = context;
    const { signal, parameters, bus } = context;
    this.#details = new ClientDetails(bus, signal, () => this.#table.refresh());
    this.#table = new VirtualTable({
      label: 'Clients',
      columns: columns((name) => this.#details.get(name)),
      key: (row) => row.name,
      sort: { id: 'name', descending: false },
      open: (row) => this.#show(row.name, true),
      shown: (rows) => this.#details.want(rows.map(({ name }) => name)),
    });
    this.#split = new Split(this.#table.element, {
      label: 'Details of a client',
      closed: () => this.#show(undefined, false),
    });
    this.#filter.value = parameters.get('mask') ?? '';
    this.#filter.addEventListener('input', () => {
      this.#remember();
      this.#showRows();
    });
    const tools = h('div', { class: 'toolbar' }, this.#filter, this.#summary);
    this.element = h('div', { class: 'view fill' }, tools, this.#notice.element, this.#split.element);
    poll(
      signal,
      () => Math.max(INTERVAL, this.#cost / LOAD),
      () => this.#update(),
      (error) => this.#notice.show(`No list of clients: ${sentenceOf(error)}`),
    );
    const name = parameters.get('name');
    if (name !== null) this.#show(name, false);
    poll(
      signal,
      DETAILS_INTERVAL,
      async () => this.#updateDetails(),
      () => {},
    );
  }

  async #update() {
    const answer = await this.#context.bus.call('client.list', undefined, this.#context.signal);
    const start = performance.now();
    this.#clients.update(answer, start);
    this.#notice.clear();
    this.#isLoaded = true;
    this.#showRows();
    // decoding the answer costs several times as much as taking it over
    this.#cost = (performance.now() - start) * 4;
  }

  #showRows() {
    const { rows, omitted } = this.#clients;
    const accepts = nameFilter(this.#filter.value);
    const shown = rows.filter((row) => accepts(row.name));
    const more = omitted > 0 ? `; ${count(omitted)} more are not shown` : '';
    const of = shown.length === rows.length ? '' : ` of ${count(rows.length)}`;
    if (this.#isLoaded) setText(this.#summary, `${count(shown.length)}${of} clients${more}`);
    this.#table.setRows(shown);
    const nothing = emptyState('No client matches', 'Clear the filter, or use another mask.');
    this.#table.setEmpty(this.#isLoaded && shown.length === 0 ? nothing : undefined);
  }

  /**
   * @param {string | undefined} name
   * @param {boolean} takesFocus
   */
  #show(name, takesFocus) {
    this.#shown = name;
    this.#remember();
    this.#table.select(name);
    if (name === undefined) return;
    this.#split.open(busText(name), h('p', { class: 'muted' }, 'Loading'), takesFocus);
    this.#updateDetails();
  }

  #remember() {
    this.#context.remember({
      mask: this.#filter.value,
      name: this.#shown ?? '',
    });
  }

  async #updateDetails() {
    const name = this.#shown;
    if (name === undefined) return;
    let content;
    try {
      const info = await this.#context.bus.call('client.info', { name }, this.#context.signal);
      content = showClient({
        name,
        info,
        row: this.#clients.get(name),
        context: this.#context,
      });
    } catch (error) {
      if (isInterruption(error)) return;
      content = h('p', { class: 'notice' }, sentenceOf(error));
    }
    if (this.#shown === name && !this.#context.signal.aborted) this.#split.update(content);
  }
}

/**
 * @param {(name: string) => any} infoOf
 * @returns {import('../parts/virtual-table.js').Column<ClientRow>[]}
 */
function columns(infoOf) {
  return [
    {
      id: 'name',
      title: 'Name',
      width: 150,
      grow: 3,
      text: (row) => row.name,
      sort: (row) => row.name,
      render: (cell, row) => renderText(cell, row.name),
    },
    rateColumn('sends', 'Sends /s', 2, (row) => row.sends, rate),
    rateColumn('receives', 'Receives /s', 1, (row) => row.receives, rate),
    rateColumn('sends-bytes', 'Sends B/s', 6, (row) => row.sendsBytes, bytesOrNothing),
    rateColumn('receives-bytes', 'Receives B/s', 5, (row) => row.receivesBytes, bytesOrNothing),
    rateColumn(
      'queue',
      'Queue',
      3,
      (row) => row.queue,
      (queue) => (queue === 0 ? '–' : count(queue)),
    ),
    {
      id: 'policy',
      title: 'Policy',
      hint: 'What happens if its queue is full (overflow)',
      width: 92,
      rank: 9,
      text: (row) => visible(infoOf(row.name)?.overflow ?? '', 20),
    },
    {
      id: 'kind',
      title: 'Kind',
      width: 92,
      rank: 7,
      text: (row) => visible(row.kind, 20),
      sort: (row) => row.kind,
    },
    {
      id: 'source',
      title: 'Source',
      width: 130,
      grow: 1,
      rank: 8,
      text: (row) => row.source,
      sort: (row) => row.source,
      render: (cell, row) => renderText(cell, row.source),
    },
    {
      id: 'user',
      title: 'User',
      hint: 'User ID of the process behind a UNIX socket',
      width: 62,
      rank: 10,
      number: true,
      text: (row) => visible(infoOf(row.name)?.uid ?? '', 12),
    },
    {
      id: 'identity',
      title: 'Certificate, token, unit',
      width: 150,
      grow: 1,
      rank: 11,
      text: (row) => identityOf(infoOf(row.name)),
      render: (cell, row) => renderText(cell, identityOf(infoOf(row.name))),
    },
  ];
}

/**
 * @param {string} id
 * @param {string} title
 * @param {number} rank
 * @param {(row: ClientRow) => number} value
 * @param {(value: number) => string} format
 * @returns {import('../parts/virtual-table.js').Column<ClientRow>}
 */
function rateColumn(id, title, rank, value, format) {
  return {
    id,
    title,
    rank,
    width: 104,
    number: true,
    sort: value,
    text: (row) => format(value(row)),
  };
}

/** @param {number} value */
function bytesOrNothing(value) {
  return value === 0 ? '–' : bytes(value);
}

/**
 * @param {HTMLElement} cell
 * @param {string} text
 */
function renderText(cell, text) {
  const isolated = cell.firstElementChild ?? cell.appendChild(h('bdi', { class: 'bus' }));
  const shown = visible(text, 160);
  setText(isolated, shown);
  if (cell.title !== shown) cell.title = shown;
}
