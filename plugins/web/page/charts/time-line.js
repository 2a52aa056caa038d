// A strip of time with one lane per kind of event. Draws only; its events are listed as text beside it.

import { clockMinutes } from '../format/numbers.js';
import { h } from '../parts/dom.js';

const LANE = 16;
const LABELS = 92;
const AXIS = 16;
const RANGE = 15 * 60 * 1000;

/** @typedef {{ kind: string, name: string, times: number[] }} Lane */

/** The time line of the last 15 minutes. */
export class TimeLine {
  /** @type {Lane[]} */
  #lanes = [];
  #isScheduled = false;

  /** @param {AbortSignal} signal Aborted when it is no longer used. */
  constructor(signal) {
    this.element = h('canvas', {
      class: 'time-line',
      role: 'img',
      'aria-label': 'Events of the last 15 minutes',
    });
    new ResizeObserver(() => this.#schedule()).observe(this.element);
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', () => this.#schedule(), { signal });
  }

  /** @param {Lane[]} lanes */
  set(lanes) {
    this.#lanes = lanes;
    const counts = lanes.map(({ name, times }) => `${name} ${times.length}`).join(', ');
    this.element.setAttribute('aria-label', `Events of the last 15 minutes: ${counts}`);
    this.element.style.setProperty('height', `${lanes.length * LANE + AXIS}px`);
    this.#schedule();
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
    const canvas = this.element;
    const { clientWidth: width, clientHeight: height } = canvas;
    const context = canvas.getContext('2d');
    if (context === null || width === 0 || height === 0) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    context.scale(scale, scale);
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const to = Date.now();
    const x = (/** @type {number} */ time) => LABELS + ((time - to + RANGE) / RANGE) * (width - LABELS - 4);
    context.font = `11px ${style.fontFamily}`;
    context.textBaseline = 'middle';
    this.#lanes.forEach(({ kind, name, times }, index) => {
      const middle = index * LANE + LANE / 2;
      context.fillStyle = colour('--muted');
      context.fillText(name, 0, middle);
      context.fillStyle = colour('--plot-grid');
      context.fillRect(LABELS, middle, width - LABELS, 1);
      context.fillStyle = colour(`--event-${kind}`) || colour('--text');
      for (const time of times) if (time > to - RANGE) context.fillRect(x(time) - 1, middle - 5, 2, 10);
    });
    context.fillStyle = colour('--muted');
    context.textAlign = 'center';
    const step = width < 500 ? 300_000 : 60_000 * 3;
    for (let time = Math.ceil((to - RANGE) / step) * step; time <= to; time += step) {
      const at = x(time);
      if (at > LABELS + 14 && at < width - 14) context.fillText(clockMinutes(time), at, height - AXIS / 2);
    }
  }
}
