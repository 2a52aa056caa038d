// Plots series over time on a canvas: axis, gaps, and a cursor for pointer and keyboard. Never fetches
// values.

import { clock, clockMinutes } from '../format/numbers.js';
import { h, newId, setText } from '../parts/dom.js';

/**
 * Values of a series; `null` is a gap.
 * @typedef {{ name: string, values: ArrayLike<number | null> }} Series
 */

/**
 * @typedef {object} PlotOptions
 * @property {string} title
 * @property {(value: number) => string} format
 * @property {string} [unit] Follows the value; not in the axis.
 * @property {string} [about] What the values are.
 * @property {AbortSignal} signal Aborted when the plot is no longer used.
 * @property {boolean} [isBinary] Whether the axis ends at powers of two, for bytes.
 * @property {boolean} [fromZero] Whether the axis begins at 0. Default: true.
 */

const AXIS_HEIGHT = 16;
const LINES = 2;

/** A plot with its title and current values. */
export class Plot {
  #options;
  /** @type {Series[]} */
  #series = [];
  /** Unix times of the values, in milliseconds. @type {ArrayLike<number>} */
  #times = [];
  #from = 0;
  #to = 0;
  /** The index of the value under the cursor. @type {number | undefined} */
  #cursor;
  #isScheduled = false;

  /** @param {PlotOptions} options */
  constructor(options) {
    this.#options = options;
    this.#readout = h('dl', { class: 'readout' });
    this.#time = h('span', { class: 'plot-time hidden' });
    const id = newId('plot');
    this.canvas = h('canvas', {
      class: 'plot',
      tabindex: 0,
      role: 'img',
      'aria-labelledby': id,
      onpointermove: (event) => this.#pointAt(event.offsetX),
      onpointerleave: () => this.#setCursor(undefined),
      onblur: () => this.#setCursor(undefined),
      onkeydown: (event) => this.#onKey(event),
    });
    const title = h('h2', { id, title: options.about }, options.title);
    const head = h('header', {}, title, this.#time, this.#readout);
    this.element = h('section', { class: 'plot-panel', 'aria-label': options.title }, head, this.canvas);
    new ResizeObserver(() => this.#schedule()).observe(this.canvas);
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', () => this.#schedule(), {
      signal: options.signal,
    });
  }

  #readout;
  #time;

  /**
   * Shows other values.
   * @param {{ times: ArrayLike<number>, from: number, to: number, series: Series[] }} data
   */
  set({ times, from, to, series }) {
    this.#times = times;
    this.#from = from;
    this.#to = to;
    this.#series = series.slice(0, LINES);
    if (this.#cursor !== undefined && this.#cursor >= times.length) this.#cursor = undefined;
    this.#showValues();
    this.#schedule();
  }

  /** @param {number} x */
  #pointAt(x) {
    const { length } = this.#times;
    if (length === 0) return;
    const time = this.#from + (x / this.canvas.clientWidth) * (this.#to - this.#from);
    let low = 0;
    let high = length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#times[middle] < time) low = middle + 1;
      else high = middle;
    }
    this.#setCursor(low);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const last = this.#times.length - 1;
    const at = this.#cursor ?? last;
    const step = event.shiftKey ? 60 : 1;
    const moves = /** @type {Record<string, number | undefined>} */ ({
      ArrowLeft: at - step,
      ArrowRight: at + step,
      Home: 0,
      End: last,
    });
    const to = moves[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.#setCursor(Math.min(Math.max(to, 0), last));
  }

  /** @param {number | undefined} cursor */
  #setCursor(cursor) {
    if (cursor === this.#cursor) return;
    this.#cursor = cursor;
    this.#showValues();
    this.#schedule();
  }

  #showValues() {
    const at = this.#cursor ?? this.#times.length - 1;
    const time = this.#times[at];
    setText(this.#time, this.#cursor === undefined || time === undefined ? '' : clock(time));
    while (this.#readout.childElementCount > this.#series.length) this.#readout.lastElementChild?.remove();
    this.#series.forEach(({ name, values }, index) => {
      const value = at >= 0 ? values[at] : undefined;
      const text = value === null || value === undefined ? '–' : this.#options.format(value);
      const entry = this.#readout.children[index] ?? this.#readout.appendChild(this.#entry(index));
      entry.classList.toggle('single', this.#series.length === 1);
      setText(entry.children[0].children[1], this.#series.length > 1 ? name : '');
      setText(entry.children[1], `${text}${this.#options.unit ?? ''}`);
    });
    const values = this.#readout.textContent ?? '';
    this.canvas.setAttribute('aria-label', `${this.#options.title}: ${values}`);
    this.canvas.removeAttribute('aria-labelledby');
  }

  /** @param {number} index */
  #entry(index) {
    return h('div', {}, h('dt', {}, h('i', { class: `line line-${index}` }), h('span')), h('dd'));
  }

  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => {
      this.#isScheduled = false;
      this.#draw();
    });
  }

  #draw() {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    const context = canvas.getContext('2d');
    if (context === null || width === 0 || height === 0) return;
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const area = { width, height: height - AXIS_HEIGHT };
    const { low, high } = this.#range();
    const x = (/** @type {number} */ time) =>
      ((time - this.#from) / Math.max(this.#to - this.#from, 1)) * area.width;
    const y = (/** @type {number} */ value) =>
      area.height - ((value - low) / (high - low || 1)) * (area.height - 6) - 1;
    context.font = `11px ${style.fontFamily}`;
    this.#drawAxes(context, area, {
      low,
      high,
      x,
      y,
      line: colour('--plot-grid'),
      text: colour('--muted'),
    });
    this.#series.forEach((series, index) => {
      context.strokeStyle = colour(`--line-${index}`);
      context.setLineDash(index === 0 ? [] : [4, 3]);
      this.#drawSeries(
        context,
        series.values,
        x,
        y,
        index === 0 ? colour('--plot-area') : undefined,
        area.height,
      );
    });
    context.setLineDash([]);
    if (this.#cursor !== undefined) {
      const time = this.#times[this.#cursor];
      const at = x(time);
      context.strokeStyle = colour('--muted');
      context.beginPath();
      context.moveTo(at, 0);
      context.lineTo(at, area.height);
      context.stroke();
      const isRight = at < area.width / 2;
      context.fillStyle = colour('--text');
      context.textBaseline = 'top';
      context.textAlign = isRight ? 'left' : 'right';
      context.fillText(clock(time), at + (isRight ? 4 : -4), 3);
    }
  }

  #range() {
    let low = Infinity;
    let high = -Infinity;
    for (const { values } of this.#series) {
      for (let index = 0; index < values.length; index += 1) {
        const value = values[index];
        if (value === null || Number.isNaN(value)) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    if (!Number.isFinite(high)) return { low: 0, high: 1 };
    if (this.#options.fromZero ?? true) {
      const above = this.#options.isBinary ? binaryAbove : niceAbove;
      return { low: 0, high: above(Math.max(high, 0)) };
    }
    const room = (high - low || Math.abs(high) || 1) * 0.08;
    return { low: low - room, high: high + room };
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{ width: number, height: number }} area
   * @param {{ low: number, high: number, x: (time: number) => number, y: (value: number) => number, line:
   *   string, text: string }} axis
   */
  #drawAxes(context, { width, height }, { low, high, x, y, line, text }) {
    context.lineWidth = 1;
    context.strokeStyle = line;
    context.fillStyle = text;
    for (const value of [low, (low + high) / 2, high]) {
      const at = Math.round(y(value)) + 0.5;
      context.beginPath();
      context.moveTo(0, at);
      context.lineTo(width, at);
      context.stroke();
    }
    context.textAlign = 'left';
    context.textBaseline = 'top';
    context.fillText(this.#options.format(high), 2, y(high) + 3);
    if (low !== 0) {
      context.textBaseline = 'bottom';
      context.fillText(this.#options.format(low), 2, height - 2);
    }
    const step = tickStep(this.#to - this.#from);
    context.textBaseline = 'bottom';
    context.textAlign = 'center';
    for (let time = Math.ceil(this.#from / step) * step; time <= this.#to; time += step) {
      const at = x(time);
      if (at < 18 || at > width - 18) continue;
      context.fillText(step < 60_000 ? clock(time) : clockMinutes(time), at, height + AXIS_HEIGHT);
      context.beginPath();
      context.moveTo(Math.round(at) + 0.5, height - 3);
      context.lineTo(Math.round(at) + 0.5, height + 2);
      context.stroke();
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {ArrayLike<number | null>} values
   * @param {(time: number) => number} x
   * @param {(value: number) => number} y
   * @param {string | undefined} area
   * @param {number} bottom
   */
  #drawSeries(context, values, x, y, area, bottom) {
    context.lineWidth = 1.5;
    context.lineJoin = 'round';
    /** @type {number[][]} */
    let part = [];
    const end = () => {
      drawPart(context, part, area, bottom);
      part = [];
    };
    for (let index = 0; index < values.length; index += 1) {
      const value = values[index];
      if (value === null || Number.isNaN(value)) end();
      else part.push([x(this.#times[index]), y(value)]);
    }
    end();
  }
}

/**
 * Draws consecutive points.
 * @param {CanvasRenderingContext2D} context
 * @param {number[][]} points
 * @param {string | undefined} area The colour below the line.
 * @param {number} bottom
 */
function drawPart(context, points, area, bottom) {
  if (points.length === 0) return;
  context.beginPath();
  if (points.length === 1) context.moveTo(points[0][0] - 1, points[0][1]);
  for (const [x, y] of points) context.lineTo(x, y);
  context.stroke();
  if (area === undefined) return;
  context.lineTo(points[points.length - 1][0], bottom);
  context.lineTo(points[0][0], bottom);
  context.fillStyle = area;
  context.fill();
}

/**
 * Returns 1, 2, 2.5 or 5 times a power of ten that is not below a value.
 * @param {number} value
 */
function niceAbove(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 2.5, 5, 10].find((candidate) => candidate * power >= value * 1.02) ?? 10;
  return factor * power;
}

/**
 * Returns a power of two that is not below a value, at least 1 KiB.
 * @param {number} value
 */
function binaryAbove(value) {
  return 2 ** Math.max(10, Math.ceil(Math.log2(Math.max(value, 1) * 1.02)));
}

/**
 * Returns the distance of the labels of the time axis.
 * @param {number} range
 */
function tickStep(range) {
  const steps = [5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000];
  return steps.find((step) => range / step <= 6) ?? 7_200_000;
}
