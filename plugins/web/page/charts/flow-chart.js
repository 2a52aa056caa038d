// Draws flows as SVG: senders, receivers and topics, and the subscribers of the topics, with lines between
// them. Owns which name is highlighted.

import { quantity } from '../format/numbers.js';
import { visible } from '../format/text.js';
import { fill, h, svg } from '../parts/dom.js';

/** @typedef {import('../model/flows.js').FlowNode} FlowNode */
/** @typedef {import('../model/flows.js').FlowLayout} FlowLayout */

const ROW = 20;
const TOP = 24;
const CHARACTER = 6.9;
/** The part of the width that the names of one column may have, with two columns and with three. */
const NAMES = { 2: 0.34, 3: 0.24 };
const MAX_NAMES_WIDTH = 300;

/** The columns, as what the id of a name begins with. @typedef {'from' | 'to' | 'subscriber'} Column */

/** A diagram of flows. */
export class FlowChart {
  /** @type {FlowLayout | undefined} */
  #layout;
  #selected;
  #width = 0;
  /** The column and key of the highlighted name. @type {string | undefined} */
  #chosen;

  /**
   * @param {(node: FlowNode | undefined, column: Column | undefined) => void} selected Called when a name is
   *   highlighted.
   */
  constructor(selected) {
    this.#selected = selected;
    this.drawing = svg('svg', {
      class: 'flows',
      role: 'group',
      'aria-label': 'Flows between clients and to topics',
    });
    this.element = h('div', { class: 'flow-chart' }, this.drawing);
    this.element.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.#choose(undefined, undefined);
    });
    new ResizeObserver(() => {
      if (this.element.clientWidth === this.#width) return;
      this.#width = this.element.clientWidth;
      this.#draw();
    }).observe(this.element);
  }

  /** @param {FlowLayout} layout */
  set(layout) {
    this.#layout = layout;
    const all = [
      ...layout.senders.map((node) => `from ${node.key}`),
      ...layout.receivers.map((node) => `to ${node.key}`),
      ...layout.subscribers.map((node) => `subscriber ${node.key}`),
    ];
    if (this.#chosen !== undefined && !all.includes(this.#chosen)) this.#choose(undefined, undefined);
    this.#draw();
  }

  /**
   * @param {string | undefined} chosen
   * @param {FlowNode | undefined} node
   */
  #choose(chosen, node) {
    this.#chosen = chosen;
    this.#selected(node, /** @type {Column | undefined} */ (chosen?.split(' ', 1)[0]));
    this.#highlight();
  }

  #draw() {
    const layout = this.#layout;
    if (layout === undefined || this.#width === 0) return;
    const width = this.#width;
    const hasSubscribers = layout.subscribers.length > 0;
    const names = Math.min(width * NAMES[hasSubscribers ? 3 : 2], MAX_NAMES_WIDTH);
    /** Where the names of a column begin, or end in the first one. */
    const places = {
      from: names,
      to: hasSubscribers ? (width - names) / 2 : width - names,
      subscriber: width - names,
    };
    const columns = { from: layout.senders, to: layout.receivers, subscriber: layout.subscribers };
    const rows = Math.max(...Object.values(columns).map((column) => column.length));
    const height = TOP + rows * ROW + 6;
    const focused = document.activeElement?.getAttribute('data-node');
    this.drawing.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.drawing.setAttribute('width', String(width));
    this.drawing.setAttribute('height', String(height));
    const y = (/** @type {FlowNode} */ node, /** @type {Column} */ column) =>
      TOP + (node.row + 0.5) * ROW + ((rows - columns[column].length) * ROW) / 2;
    const most = Math.max(1, ...layout.links.map(({ messages }) => messages));
    // small flows are drawn last, so that they remain visible
    const lines = layout.links.map(({ kind, messages, from, to }) => {
      /** @type {[Column, Column]} */
      const [start, end] = kind === 'subscription' ? ['to', 'subscriber'] : ['from', 'to'];
      const x1 = start === 'from' ? names + 8 : places.to + labelWidth(from.name, names) + 4;
      const x2 = places[end] - 8;
      const [y1, y2] = [y(from, start), y(to, end)];
      const bend = (x2 - x1) * 0.45;
      const line = svg('path', {
        class: `flow ${kind}`,
        d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`,
        'stroke-width':
          kind === 'subscription' ? 1.5 : (1 + 5 * (Math.log1p(messages) / Math.log1p(most))).toFixed(2),
        'data-from': `${start} ${from.key}`,
        'data-to': `${end} ${to.key}`,
      });
      const what = kind === 'subscription' ? 'subscribes' : `${quantity(messages)} messages`;
      line.append(svg('title', {}, `${visible(from.name)} to ${visible(to.name)}: ${what}`));
      return line;
    });
    const all = /** @type {Column[]} */ (Object.keys(columns)).flatMap((column) =>
      columns[column].map((node) => this.#name(node, column, places[column], y(node, column), names)),
    );
    const titles = { from: 'Senders', to: 'Receivers and topics', subscriber: 'Subscribers' };
    fill(
      this.drawing,
      ...Object.entries(titles)
        .filter(([column]) => column !== 'subscriber' || hasSubscribers)
        .map(([column, title]) =>
          svg(
            'text',
            {
              class: 'column-title',
              x: places[/** @type {Column} */ (column)],
              y: 14,
              'text-anchor': column === 'from' ? 'end' : 'start',
            },
            title,
          ),
        ),
      ...lines,
      ...all,
    );
    this.#highlight();
    const again =
      focused &&
      [...this.drawing.querySelectorAll('[data-node]')].find(
        (item) => item.getAttribute('data-node') === focused,
      );
    if (again instanceof SVGElement) again.focus({ preventScroll: true });
  }

  /**
   * @param {FlowNode} node
   * @param {Column} side
   * @param {number} x
   * @param {number} y
   * @param {number} width
   */
  #name(node, side, x, y, width) {
    const id = `${side} ${node.key}`;
    const characters = charactersIn(width);
    const isLeft = side === 'from';
    const label = svg(
      'text',
      { x, y: y + 4, 'text-anchor': isLeft ? 'end' : 'start' },
      shorten(node.name, characters),
    );
    const mark = node.isTopic
      ? svg('rect', { x: x - 8, y: y - 3, width: 6, height: 6, class: 'mark' })
      : svg('circle', {
          cx: isLeft ? x + 5 : x - 5,
          cy: y,
          r: 3,
          class: 'mark',
        });
    const choose = () =>
      this.#choose(this.#chosen === id ? undefined : id, this.#chosen === id ? undefined : node);
    const group = svg(
      'g',
      {
        class: `flow-name${node.isTopic ? ' topic' : ''}`,
        tabindex: 0,
        role: 'button',
        'data-node': id,
        'aria-pressed': String(this.#chosen === id),
        'aria-label': `${roleOf(node, side)} ${visible(node.name, 80)}`,
        onclick: choose,
        onkeydown: (event) => {
          if (event.key !== 'Enter' && event.key !== ' ') return;
          event.preventDefault();
          choose();
        },
        onpointerenter: () => this.#highlight(id),
        onpointerleave: () => this.#highlight(),
      },
      svg('rect', {
        class: 'hit',
        x: isLeft ? 0 : x - 10,
        y: y - ROW / 2,
        width: width + 10,
        height: ROW,
      }),
      label,
      mark,
    );
    group.append(svg('title', {}, `${visible(node.name)}: ${quantity(node.messages)} messages`));
    return group;
  }

  /**
   * Makes the lines of a name stand out.
   * @param {string} [hovered]
   */
  #highlight(hovered) {
    const id = hovered ?? this.#chosen;
    this.drawing.classList.toggle('chosen', id !== undefined);
    const near = new Set([id]);
    for (const line of this.drawing.querySelectorAll('.flow')) {
      const ends = [line.getAttribute('data-from') ?? '', line.getAttribute('data-to') ?? ''];
      const isOn = id !== undefined && ends.includes(id);
      line.classList.toggle('on', isOn);
      if (isOn) ends.forEach((end) => near.add(end));
    }
    for (const name of this.drawing.querySelectorAll('.flow-name')) {
      const own = name.getAttribute('data-node') ?? '';
      name.classList.toggle('on', near.has(own));
      name.setAttribute('aria-pressed', String(own === this.#chosen));
    }
  }
}

/**
 * @param {FlowNode} node
 * @param {Column} side
 */
function roleOf(node, side) {
  if (side === 'to') return node.isTopic ? 'Topic' : 'Receiver';
  return side === 'from' ? 'Sender' : 'Subscriber';
}

/** @param {number} width */
function charactersIn(width) {
  return Math.max(6, Math.floor((width - 6) / CHARACTER));
}

/**
 * @param {string} name
 * @param {number} width That of its column.
 */
function labelWidth(name, width) {
  return Math.min(width, shorten(name, charactersIn(width)).length * CHARACTER);
}

/**
 * Shortens a name in the middle, because beginning and end distinguish names.
 * @param {string} name
 * @param {number} characters
 */
function shorten(name, characters) {
  const shown = visible(name.length > 1000 ? name.slice(0, 1000) : name, 1000);
  if (shown.length <= characters) return shown;
  const end = Math.floor((characters - 1) * 0.45);
  return `${shown.slice(0, characters - 1 - end)}…${shown.slice(shown.length - end)}`;
}
