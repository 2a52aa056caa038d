// The live tree of topics with rates and last values.

import { sentenceOf } from '../bus/bus.js';
import { age, count, quantity, rate } from '../format/numbers.js';
import { FORMATS, showLine } from '../format/payload.js';
import { visible } from '../format/text.js';
import { TopicFeed } from '../model/topic-feed.js';
import { MAX_TOPICS, TopicTree } from '../model/topic-tree.js';
import { h, setText } from '../parts/dom.js';
import { busText, field, select, textInput } from '../parts/fields.js';
import { emptyState, Notice } from '../parts/notices.js';
import { Split } from '../parts/split.js';
import { VirtualTable } from '../parts/virtual-table.js';
import { publishForm } from './publish.js';
import { TopicDetails } from './topic-details.js';

/** @typedef {import('../model/topic-tree.js').TopicNode} TopicNode */
/** @typedef {import('../format/payload.js').PayloadFormat} PayloadFormat */

const TICK = 1000;

/** @type {import('../router.js').View} */
export const topicsView = {
  id: 'topics',
  title: 'Topics',
  create: (context) => new TopicsView(context).element,
};

class TopicsView {
  #context;
  #tree = new TopicTree();
  #feed;
  #filter = textInput({ value: '#', class: 'bus', maxlength: 1024 });
  #search = textInput({ type: 'search', placeholder: 'part of the topic' });
  #format = select(FORMATS, () => this.#tick());
  #pause = h(
    'button',
    {
      type: 'button',
      'aria-pressed': 'false',
      onclick: () => this.#togglePause(),
    },
    'Pause',
  );
  #summary = h('span', { class: 'summary' });
  #notice = new Notice();
  #isSubscribed = false;
  #table;
  #split;
  #details;
  #publish;

  /** @param {import('../router.js').Context} context */
  constructor(context) {
    this.#context = context;
    const { bus, signal, parameters } = context;
    this.#publish = publishForm(bus);
    this.#details = new TopicDetails(signal, (topic) => this.#publish.open(topic));
    this.#feed = new TopicFeed(
      bus,
      signal,
      (frame) => {
        const now = Date.now();
        this.#tree.add(frame, now);
        this.#details.add(frame, now);
      },
      (error) => this.#subscribed(error),
    );
    this.#table = new VirtualTable({
      label: 'Topics',
      columns: this.#columns(),
      key: (/** @type {TopicNode} */ node) => node.key,
      open: (node) => this.#open(node),
      tree: (node) => ({
        level: node.level,
        expanded: node.children.size > 0 ? node.isExpanded : undefined,
      }),
      expand: (node, expanded) => this.#expand(node, expanded),
    });
    this.#split = new Split(this.#table.element, {
      label: 'Details of a topic',
      closed: () => {
        this.#details.show(undefined);
        this.#tree.select('');
        this.#table.select(undefined);
      },
    });
    this.#filter.value = parameters.get('filter') ?? '#';
    this.#search.addEventListener('input', () => this.#tick());
    this.element = h(
      'div',
      { class: 'view fill' },
      this.#toolbar(),
      this.#publish.element,
      this.#notice.element,
      this.#split.element,
    );
    this.#start();
    const timer = setInterval(() => this.#tick(), TICK);
    signal.addEventListener('abort', () => clearInterval(timer));
  }

  #toolbar() {
    const submit = (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      this.#start();
    };
    return h(
      'form',
      { class: 'toolbar', onsubmit: submit },
      field('Subscribe to', this.#filter),
      h('button', { type: 'submit' }, 'Apply'),
      field('Show', this.#search),
      field('Values as', this.#format),
      this.#pause,
      this.#publish.toggle,
      this.#summary,
    );
  }

  /** @returns {import('../parts/virtual-table.js').Column<TopicNode>[]} */
  #columns() {
    return [
      {
        id: 'topic',
        title: 'Topic',
        width: 170,
        grow: 2,
        text: (node) => node.segment,
        render: renderSegment,
      },
      {
        id: 'rate',
        title: 'Rate /s',
        width: 72,
        number: true,
        text: (node) => rate(node.rate),
      },
      {
        id: 'value',
        title: 'Last value',
        width: 120,
        grow: 3,
        text: () => '',
        render: (cell, node) => this.#renderValue(cell, node),
      },
      {
        id: 'age',
        title: 'Age',
        width: 92,
        number: true,
        rank: 1,
        text: ({ topic }) => (topic === undefined ? '' : age(Date.now() - topic.at)),
      },
    ];
  }

  /**
   * @param {HTMLElement} cell
   * @param {TopicNode} node
   */
  #renderValue(cell, { topic }) {
    const value = cell.firstElementChild ?? cell.appendChild(h('bdi', { class: 'bus' }));
    const format = /** @type {PayloadFormat} */ (this.#format.value);
    setText(value, topic === undefined ? '' : showLine(topic.value, format).text);
  }

  #start() {
    const filter = this.#filter.value;
    this.#context.remember({ filter: filter === '#' ? '' : filter });
    this.#tree.clear();
    this.#isSubscribed = false;
    this.#notice.clear();
    this.#feed.start(filter);
    this.#tick();
  }

  /** @param {unknown} error */
  #subscribed(error) {
    this.#isSubscribed = error === undefined;
    const { interval } = this.#feed;
    if (error !== undefined) this.#notice.show(`Not subscribed: ${sentenceOf(error)}`);
    else if (interval === 0) this.#notice.clear();
    else {
      const seconds = interval / 1000;
      this.#notice.show(
        `Sampled: so much is published that the page receives each topic at most every ${seconds} s. ` +
          'Rates are those of the samples. A narrower filter shows all publications.',
      );
    }
    this.#tick();
  }

  #togglePause() {
    this.#feed.isPaused = !this.#feed.isPaused;
    this.#pause.setAttribute('aria-pressed', String(this.#feed.isPaused));
    setText(this.#pause, this.#feed.isPaused ? 'Continue' : 'Pause');
  }

  /**
   * @param {TopicNode} node
   * @param {boolean} expanded
   */
  #expand(node, expanded) {
    if (node.children.size === 0) return;
    node.isExpanded = expanded;
    this.#show();
  }

  /** @param {TopicNode} node */
  #open(node) {
    if (node.topic === undefined) {
      this.#expand(node, !node.isExpanded);
      return;
    }
    const { topic } = node;
    this.#tree.select(topic.name);
    this.#split.open(busText(topic.name), this.#details.element, true);
    this.#details.show(topic);
  }

  #tick() {
    if (!this.#feed.isPaused) this.#tree.tick(performance.now());
    if (document.visibilityState === 'visible') this.#show();
  }

  #show() {
    const part = this.#search.value.trim().toLowerCase();
    const nodes = this.#tree.visibleNodes((name) => part === '' || name.toLowerCase().includes(part));
    this.#table.setRows(nodes);
    this.#details.format = /** @type {PayloadFormat} */ (this.#format.value);
    this.#details.refresh();
    setText(this.#summary, this.#describe());
    if (nodes.length > 0) this.#table.setEmpty(undefined);
    else if (this.#isSubscribed) this.#table.setEmpty(this.#nothing(part));
  }

  #describe() {
    const { size, dropped, ignored } = this.#tree;
    const parts = [`${count(size)} topics`, `${quantity(this.#tree.rate)} /s`];
    if (dropped > 0) parts.push(`the latest ${count(MAX_TOPICS)} are kept`);
    if (ignored > 0) parts.push(`${count(ignored)} publications to very long topics are not shown`);
    if (this.#feed.missed > 0) parts.push(`${count(this.#feed.missed)} publications missed`);
    if (this.#feed.isPaused) parts.push('paused');
    return parts.join(' · ');
  }

  /** @param {string} part */
  #nothing(part) {
    if (part !== '') return emptyState('No topic contains this text', 'Clear the field "Show".');
    const filter = visible(this.#filter.value, 60);
    return emptyState(
      'Nothing has been published yet',
      `The page is subscribed to ${filter}. Publish to a topic.`,
    );
  }
}

/**
 * @param {HTMLElement} cell
 * @param {TopicNode} node
 */
function renderSegment(cell, node) {
  if (cell.childElementCount === 0) {
    cell.classList.add('tree-cell');
    cell.append(h('span', { class: 'twist', 'aria-hidden': 'true' }), h('bdi', { class: 'bus' }));
  }
  cell.style.setProperty('--level', String(Math.min(node.level, 12) - 1));
  const hasChildren = node.children.size > 0;
  setText(cell.children[0], hasChildren ? (node.isExpanded ? '▾' : '▸') : '');
  const name = node.segment === '' ? '(empty)' : visible(node.segment, 160);
  setText(cell.children[1], name);
}
