// Flows between clients and to topics, sampled by the plugin web, and the subscribers of these topics.

import { isInterruption, sentenceOf } from '../bus/bus.js';
import { poll } from '../bus/poll.js';
import { FlowChart } from '../charts/flow-chart.js';
import { bytes, clock, count, quantity, toNumber } from '../format/numbers.js';
import { layOut, readFlows } from '../model/flows.js';
import { nameFilter } from '../model/mask.js';
import { fill, h, setText } from '../parts/dom.js';
import { busText, textInput } from '../parts/fields.js';
import { emptyState, Notice } from '../parts/notices.js';

/** @typedef {import('../model/flows.js').Flow} Flow */
/** @typedef {import('../model/flows.js').FlowNode} FlowNode */

const INTERVAL = 3000;
const MAX_ROWS = 30;
/** Topics whose subscribers are shown, those with most messages. */
const MAX_TOPICS = 30;
/** Time after which the subscribers of a topic are asked for again. */
const SUBSCRIBERS_AGE = 10_000;
const MAX_NAMED = 12;
/** @type {[import('../model/flows.js').FlowKind, string][]} */
const KINDS = [
  ['message', 'Messages'],
  ['rpc', 'Calls'],
  ['topic', 'Topics'],
];

/** @type {import('../router.js').View} */
export const mapView = {
  id: 'map',
  title: 'Map',
  create: (context) => new MapView(context).element,
};

class MapView {
  /** @type {Flow[]} */
  #flows = [];
  #isLoaded = false;
  /** @type {FlowNode | undefined} */
  #selected;
  #isSubscriber = false;
  /** @type {import('../model/flows.js').Subscribers} */
  #subscribers = new Map();
  /** When the subscribers of a topic were asked for. @type {Map<string, number>} */
  #asked = new Map();
  #withoutSubscribers = '';
  #kinds = new Set(KINDS.map(([kind]) => kind));
  #filter = textInput({
    type: 'search',
    class: 'filter',
    placeholder: 'plant.* or a part of the name',
    'aria-label': 'Filter by name or mask',
  });
  #summary = h('span', { class: 'summary' });
  #notice = new Notice();
  #chart = new FlowChart((node, column) => {
    this.#selected = node;
    this.#isSubscriber = column === 'subscriber';
    this.#showTable();
  });
  #table = h('section', { class: 'flow-table', 'aria-label': 'Flows', tabindex: 0 });
  #empty = h('div');

  /** @param {import('../router.js').Context} context */
  constructor({ bus, signal }) {
    this.#filter.addEventListener('input', () => this.#show());
    const tools = h('div', { class: 'toolbar' }, this.#filter, this.#kindChoices(), this.#summary);
    const body = h('div', { class: 'map-body' }, this.#chart.element, this.#table);
    this.element = h('div', { class: 'view' }, tools, this.#notice.element, this.#empty, body);
    poll(
      signal,
      INTERVAL,
      async () => {
        const answer = await bus.call('web.map', {}, signal);
        this.#flows = readFlows(answer);
        this.#isLoaded = true;
        this.#notice.clear();
        this.#describe(answer);
        this.#show();
        await this.#findSubscribers(bus, signal);
        this.#describe(answer);
        this.#show();
      },
      (error) => this.#notice.show(`No map: ${sentenceOf(error)}`),
    );
  }

  /**
   * Asks who would get a publication to each topic: the broker answers what the access rules let the page
   * learn.
   * @param {import('../bus/bus.js').Bus} bus
   * @param {AbortSignal} signal
   */
  async #findSubscribers(bus, signal) {
    const now = performance.now();
    /** @type {Map<string, Flow>} */
    const topics = new Map();
    for (const flow of this.#flows)
      if (flow.kind === 'topic' && topics.size < MAX_TOPICS && !topics.has(flow.to))
        topics.set(flow.to, flow);
    for (const known of this.#asked.keys())
      if (!topics.has(known)) {
        this.#asked.delete(known);
        this.#subscribers.delete(known);
      }
    this.#withoutSubscribers = '';
    for (const [to, { from, topic }] of topics) {
      if (now - (this.#asked.get(to) ?? -Infinity) < SUBSCRIBERS_AGE) continue;
      try {
        const answer = await bus.call('explain', { action: 'publish', name: from, target: topic }, signal);
        this.#subscribers.set(to, namesOf(answer));
        this.#asked.set(to, now);
      } catch (error) {
        if (signal.aborted || isInterruption(error)) return;
        this.#subscribers.delete(to);
        this.#withoutSubscribers = `no subscribers: ${sentenceOf(error)}`;
        return;
      }
    }
  }

  #kindChoices() {
    const boxes = KINDS.map(([kind, name]) => {
      const changed = (/** @type {Event} */ event) => {
        if (/** @type {HTMLInputElement} */ (event.target).checked) this.#kinds.add(kind);
        else this.#kinds.delete(kind);
        this.#show();
      };
      const box = h('input', {
        type: 'checkbox',
        checked: true,
        onchange: changed,
      });
      return h('label', { class: `choice kind-${kind}` }, box, h('i', { class: 'swatch' }), name);
    });
    return h('fieldset', { class: 'choices' }, h('legend', { class: 'hidden' }, 'Kinds'), ...boxes);
  }

  /** @param {any} answer */
  #describe(answer) {
    const since = toNumber(answer?.since_ms);
    const parts = [];
    if (since > 0) parts.push(`since ${clock(since)}`);
    if (answer?.sampled === true) parts.push('sampled');
    if (toNumber(answer?.missed) > 0) parts.push(`${quantity(answer.missed)} messages were not seen`);
    if (this.#withoutSubscribers !== '') parts.push(this.#withoutSubscribers);
    setText(this.#summary, parts.join(' · '));
  }

  #show() {
    const accepts = nameFilter(this.#filter.value);
    const flows = this.#flows.filter(
      (flow) => this.#kinds.has(flow.kind) && (accepts(flow.from) || accepts(flow.to)),
    );
    const layout = layOut(flows, this.#subscribers);
    this.#chart.element.hidden = flows.length === 0;
    this.#chart.set(layout);
    this.#visible = flows;
    this.#omitted = layout.omitted;
    this.#showTable();
    const nothing =
      this.#flows.length === 0
        ? emptyState('Nobody has sent anything yet', 'Flows appear when clients send, publish or call.')
        : emptyState('No flow matches', 'Clear the filter, or choose more kinds.');
    fill(this.#empty, this.#isLoaded && flows.length === 0 ? nothing : null);
  }

  /** @type {Flow[]} */
  #visible = [];
  #omitted = 0;

  #showTable() {
    const node = this.#selected;
    const touches = (/** @type {Flow} */ flow) => {
      if (node === undefined) return true;
      if (this.#isSubscriber)
        return flow.kind === 'topic' && this.#subscribers.get(flow.to)?.includes(node.name) === true;
      if (node.isTopic) return flow.kind === 'topic' && flow.to === node.name;
      return flow.from === node.name || (flow.kind !== 'topic' && flow.to === node.name);
    };
    const flows = this.#visible.filter(touches);
    this.#table.hidden = flows.length === 0;
    const rows = flows
      .slice(0, MAX_ROWS)
      .map((flow) =>
        h(
          'tr',
          {},
          h('td', {}, busText(flow.from, 60)),
          h('td', {}, busText(flow.to, 60)),
          h('td', {}, { message: 'message', rpc: 'call', topic: 'topic' }[flow.kind]),
          h('td', { class: 'number' }, quantity(flow.messages)),
          h('td', { class: 'number' }, bytes(flow.bytes)),
        ),
      );
    const head = ['From', 'To', 'Kind', 'Messages', 'Bytes'];
    const title = node === undefined ? 'Largest flows' : busText(node.name, 60);
    const more = flows.length - rows.length + (node === undefined ? this.#omitted : 0);
    const cells = head.map((text, at) => h('th', { scope: 'col', class: at > 2 ? 'number' : null }, text));
    const table = h('table', {}, h('thead', {}, h('tr', {}, ...cells)), h('tbody', {}, ...rows));
    const note =
      more > 0 ? h('p', { class: 'muted' }, `and ${count(more)} more; filter by name to see them`) : null;
    const subscribers = node?.isTopic ? this.#subscribers.get(node.name) : undefined;
    fill(this.#table, h('h2', {}, title), table, note, subscribers ? subscriberList(subscribers) : null);
  }
}

/**
 * Returns the names of an answer of `explain`: recipients, and the members of groups.
 * @param {any} answer
 * @returns {string[]}
 */
function namesOf(answer) {
  const options = Array.isArray(answer?.options) ? answer.options : [];
  const all = [
    ...(Array.isArray(answer?.recipients) ? answer.recipients : []),
    ...options.map((/** @type {any} */ option) => option?.client),
  ];
  return [...new Set(all.filter((name) => typeof name === 'string'))];
}

/** @param {string[]} names */
function subscriberList(names) {
  const items = names.slice(0, MAX_NAMED).map((name) => h('li', {}, busText(name, 60)));
  if (names.length > MAX_NAMED)
    items.push(h('li', { class: 'muted' }, `and ${count(names.length - MAX_NAMED)} more`));
  return h(
    'div',
    {},
    h('h3', {}, `Subscribers (${count(names.length)})`),
    h('ul', { class: 'bus-list' }, ...items),
  );
}
