// A table of any length: only the visible rows are elements. Owns scrolling, sorting, columns that fit, and
// the keyboard. Never fetches rows.

import { h, newId, setAttribute, setText } from './dom.js';

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} id
 * @property {string} title
 * @property {number} width The least width, in pixels.
 * @property {number} [grow] The part of the remaining width; without it the width is fixed.
 * @property {number} [rank] Columns with a greater rank are left out first if the table is narrow; 0 never.
 * @property {boolean} [number] Whether values are aligned to the right.
 * @property {(row: Row) => string} text
 * @property {(row: Row) => number | string} [sort] What rows are sorted by; without it the column is not
 *   sortable.
 * @property {(cell: HTMLElement, row: Row) => void} [render] Fills the cell instead of `text`.
 * @property {string} [hint] The description of the column.
 */

/**
 * @template Row
 * @typedef {object} TableOptions
 * @property {string} label
 * @property {Column<Row>[]} columns
 * @property {(row: Row) => string} key
 * @property {(row: Row) => void} [open] Called when a row is activated by a click or by Enter.
 * @property {(rows: Row[]) => void} [shown] Called with the visible rows, at most every 200 ms.
 * @property {{ id: string, descending: boolean }} [sort]
 * @property {(row: Row) => { level: number, expanded: boolean | undefined }} [tree] Makes it a tree.
 * @property {(row: Row, expanded: boolean) => void} [expand]
 */

/** Height of a row, in pixels of the layout; style.css has the same. */
const ROW = 28;
/** Rows outside the visible part, on each side. */
const MARGIN = 8;
const SHOWN_INTERVAL = 200;

/** @template Row */
export class VirtualTable {
  /** @type {Row[]} */
  #rows = [];
  /** @type {Row[]} */
  #sorted = [];
  /** @type {Column<Row>[]} */
  #columns = [];
  /** The elements of the visible rows by their keys. @type {Map<string, HTMLElement>} */
  #elements = new Map();
  #options;
  #sort;
  #isScheduled = false;
  #id = newId('table');
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #shownTimer;
  /** The key of the selected row. @type {string | undefined} */
  #selected;
  #width = 0;

  /** @param {TableOptions<Row>} options */
  constructor(options) {
    this.#options = options;
    this.#sort = options.sort;
    this.head = h('div', {
      class: 'vt-row vt-head',
      role: 'row',
      'aria-rowindex': 1,
    });
    this.space = h('div', { class: 'vt-space', role: 'rowgroup' });
    const headGroup = h('div', { class: 'vt-head-group', role: 'rowgroup' }, this.head);
    this.empty = h('div', { class: 'vt-empty', hidden: true });
    this.element = h(
      'div',
      {
        class: 'vt',
        role: options.tree ? 'treegrid' : 'grid',
        tabindex: 0,
        'aria-label': options.label,
        onscroll: () => this.#schedule(),
        onkeydown: (event) => this.#onKey(event),
        onclick: (event) => this.#onClick(event),
      },
      headGroup,
      this.space,
      this.empty,
    );
    new ResizeObserver(() => this.#resize()).observe(this.element);
    this.#columns = options.columns;
    this.#renderHead();
  }

  /** The number of rows. */
  get length() {
    return this.#sorted.length;
  }

  /** @param {Row[]} rows */
  setRows(rows) {
    this.#rows = rows;
    this.#sortRows();
    this.#schedule();
  }

  /** Draws the visible rows again, whose values have changed. */
  refresh() {
    this.#schedule();
  }

  /** @param {string | undefined} key */
  select(key) {
    this.#selected = key;
    this.#schedule();
  }

  /**
   * What is shown instead of rows.
   * @param {Node | undefined} content
   */
  setEmpty(content) {
    this.empty.replaceChildren(...(content === undefined ? [] : [content]));
    this.empty.hidden = content === undefined;
  }

  #resize() {
    const width = this.element.clientWidth;
    if (width === this.#width || width === 0) {
      this.#schedule();
      return;
    }
    this.#width = width;
    this.#columns = columnsThatFit(this.#options.columns, width);
    this.#renderHead();
    for (const element of this.#elements.values()) element.remove();
    this.#elements.clear();
    this.#schedule();
  }

  #renderHead() {
    const template = this.#columns
      .map(({ width, grow }) => (grow === undefined ? `${width}px` : `minmax(${width}px, ${grow}fr)`))
      .join(' ');
    this.element.style.setProperty('--columns', template);
    this.head.replaceChildren(...this.#columns.map((column) => this.#headCell(column)));
    setAttribute(this.element, 'aria-colcount', String(this.#columns.length));
  }

  /** @param {Column<Row>} column */
  #headCell(column) {
    const isSorted = this.#sort?.id === column.id;
    const order = isSorted ? (this.#sort?.descending ? 'descending' : 'ascending') : undefined;
    const cell = h('div', {
      class: `vt-cell${column.number ? ' number' : ''}`,
      role: 'columnheader',
      'aria-sort': column.sort ? (order ?? 'none') : undefined,
      title: column.hint,
    });
    if (column.sort === undefined) cell.append(column.title);
    else {
      const mark = h(
        'span',
        { class: 'sort-mark', 'aria-hidden': 'true' },
        order ? (order === 'descending' ? '▾' : '▴') : '',
      );
      const click = () => this.#sortBy(column);
      const button = h('button', {
        type: 'button',
        class: 'sort',
        'data-column': column.id,
        onclick: click,
      });
      if (column.number) button.append(mark, column.title);
      else button.append(column.title, mark);
      cell.append(button);
    }
    return cell;
  }

  /** @param {Column<Row>} column */
  #sortBy(column) {
    const { id, descending } = this.#sort ?? { id: '', descending: false };
    const first = column.number === true;
    this.#sort = {
      id: column.id,
      descending: id === column.id ? !descending : first,
    };
    this.#sortRows();
    this.#renderHead();
    this.#schedule();
    const button = this.head.querySelector(`[data-column="${column.id}"]`);
    if (button instanceof HTMLElement) button.focus();
  }

  #sortRows() {
    const sort = this.#sort;
    const value = this.#options.columns.find(({ id }) => id === sort?.id)?.sort;
    if (sort === undefined || value === undefined) {
      this.#sorted = this.#rows;
      return;
    }
    const direction = sort.descending ? -1 : 1;
    const keyed = this.#rows.map((row) => ({ row, by: value(row) }));
    keyed.sort((a, b) => (a.by < b.by ? -direction : a.by > b.by ? direction : 0));
    this.#sorted = keyed.map(({ row }) => row);
  }

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => {
      this.#isScheduled = false;
      this.#render();
    });
  }

  #render() {
    const { element, space } = this;
    const total = this.#sorted.length;
    const height = element.clientHeight;
    if (height === 0) return;
    space.style.setProperty('height', `${total * ROW}px`);
    setAttribute(element, 'aria-rowcount', String(total + 1));
    const first = Math.max(0, Math.floor(element.scrollTop / ROW) - MARGIN);
    const end = Math.min(total, Math.ceil((element.scrollTop + height) / ROW) + MARGIN);
    /** @type {Map<string, number>} */
    const indexes = new Map();
    for (let index = first; index < end; index += 1) {
      const key = this.#options.key(this.#sorted[index]);
      // keys come from the bus: two can be equal
      indexes.set(indexes.has(key) ? `${key} ${index}` : key, index);
    }
    // a row keeps its element while it is visible, so that a click reaches the row that was pointed at
    const before = this.#elements;
    const unused = [...before].filter(([key]) => !indexes.has(key)).map(([, unusedElement]) => unusedElement);
    this.#elements = new Map();
    for (const [key, index] of indexes) {
      const rowElement = before.get(key) ?? unused.pop() ?? this.#newRow();
      this.#elements.set(key, rowElement);
      this.#renderRow(rowElement, this.#sorted[index], index);
    }
    for (const unusedElement of unused) unusedElement.remove();
    const active = this.#selected === undefined ? undefined : this.#elements.get(this.#selected)?.id;
    setAttribute(element, 'aria-activedescendant', active);
    this.#reportShown();
  }

  #newRow() {
    const row = h('div', { class: 'vt-row', role: 'row', id: newId(this.#id) });
    for (const column of this.#columns)
      row.append(
        h('div', {
          class: `vt-cell${column.number ? ' number' : ''}`,
          role: 'gridcell',
        }),
      );
    this.space.append(row);
    return row;
  }

  /**
   * @param {HTMLElement} element
   * @param {Row} row
   * @param {number} index
   */
  #renderRow(element, row, index) {
    const key = this.#options.key(row);
    if (element.dataset.index !== String(index)) {
      element.dataset.index = String(index);
      element.style.setProperty('transform', `translateY(${index * ROW}px)`);
      setAttribute(element, 'aria-rowindex', String(index + 2));
    }
    element.dataset.key = key;
    setAttribute(element, 'aria-selected', String(key === this.#selected));
    const place = this.#options.tree?.(row);
    if (place) {
      setAttribute(element, 'aria-level', String(place.level));
      setAttribute(
        element,
        'aria-expanded',
        place.expanded === undefined ? undefined : String(place.expanded),
      );
    }
    this.#columns.forEach((column, at) => {
      const cell = /** @type {HTMLElement} */ (element.children[at]);
      if (column.render) column.render(cell, row);
      else setText(cell, column.text(row));
    });
  }

  #reportShown() {
    const { shown } = this.#options;
    if (shown === undefined || this.#shownTimer !== undefined) return;
    this.#shownTimer = setTimeout(() => {
      this.#shownTimer = undefined;
      const indexes = Array.from(this.#elements.values(), ({ dataset }) => Number(dataset.index));
      shown(indexes.map((index) => this.#sorted[index]).filter((row) => row !== undefined));
    }, SHOWN_INTERVAL);
  }

  /** @param {MouseEvent} event */
  #onClick(event) {
    const target = event.target instanceof Element ? event.target : null;
    const index = this.#indexOf(target?.closest('.vt-row[data-key]'));
    if (index === undefined) return;
    const row = this.#sorted[index];
    const place = this.#options.tree?.(row);
    if (target?.closest('.twist') && place?.expanded !== undefined)
      this.#options.expand?.(row, !place.expanded);
    else this.#activate(row);
  }

  /** @param {Element | null | undefined} element */
  #indexOf(element) {
    if (!(element instanceof HTMLElement)) return undefined;
    const index = Number(element.dataset.index);
    return this.#sorted[index] === undefined ? undefined : index;
  }

  /** @param {Row} row */
  #activate(row) {
    this.select(this.#options.key(row));
    this.#options.open?.(row);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.target !== this.element) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 2);
    const at = this.#sorted.findIndex((row) => this.#options.key(row) === this.#selected);
    const last = this.#sorted.length - 1;
    const moves = /** @type {Record<string, number>} */ ({
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? 0 : at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: last,
    });
    const row = this.#sorted[at];
    const move = moves[event.key];
    if (move !== undefined && last >= 0) this.#moveTo(Math.min(Math.max(move, 0), last));
    else if (event.key === 'Enter' && row !== undefined) this.#activate(row);
    else if (
      (event.key === 'ArrowRight' || event.key === 'ArrowLeft') &&
      row !== undefined &&
      this.#options.tree
    )
      this.#options.expand?.(row, event.key === 'ArrowRight');
    else return;
    event.preventDefault();
  }

  /** @param {number} index */
  #moveTo(index) {
    this.#selected = this.#options.key(this.#sorted[index]);
    const { element } = this;
    const top = index * ROW;
    // the head covers the first row of the visible part
    const visible = element.clientHeight - ROW;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + ROW > element.scrollTop + visible) element.scrollTop = top + ROW - visible;
    this.#schedule();
  }
}

/**
 * Leaves out columns until the others fit.
 * @template Row
 * @param {Column<Row>[]} columns
 * @param {number} width
 */
function columnsThatFit(columns, width) {
  let fitting = columns;
  for (;;) {
    const needed = fitting.reduce((sum, column) => sum + column.width, 0);
    const rank = Math.max(...fitting.map((column) => column.rank ?? 0));
    if (needed <= width || rank === 0) return fitting;
    const last = fitting.findLastIndex((column) => (column.rank ?? 0) === rank);
    fitting = fitting.filter((_, index) => index !== last);
  }
}
