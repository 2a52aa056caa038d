// The last value of one topic in full, and a plot of a number in it.

import { Plot } from '../charts/plot.js';
import { bytes, clock, count, quantity } from '../format/numbers.js';
import { numbersIn, showBlock } from '../format/payload.js';
import { visible } from '../format/text.js';
import { Samples } from '../model/samples.js';
import { fill, h, setText } from '../parts/dom.js';
import { busText, definitions, field, select } from '../parts/fields.js';

/** @typedef {import('../model/topic-tree.js').Topic} Topic */

/** The time that a plot shows at least, in milliseconds. */
const LEAST_RANGE = 60_000;
/** Longer payloads are not searched for numbers. */
const MAX_SEARCHED = 64 * 1024;
/** Plots of one topic. */
const MAX_FIELDS = 24;

/** Details of the selected topic. */
export class TopicDetails {
  #signal;
  /** @type {Topic | undefined} */
  #topic;
  /** Samples by the path of their field. @type {Map<string, Samples>} */
  #samples = new Map();
  #facts = h('div');
  #value = h('pre', {
    class: 'value',
    tabindex: 0,
    'aria-label': 'Last value',
  });
  #kind = h('h3');
  #plotArea = h('div', { class: 'topic-plot', hidden: true });
  #fieldSelect = select([], () => this.refresh());
  #plot;
  /** @type {import('../format/payload.js').PayloadFormat} */
  format = 'auto';

  /**
   * @param {AbortSignal} signal
   * @param {(topic: string) => void} publish
   */
  constructor(signal, publish) {
    this.#signal = signal;
    this.#plot = this.#newPlot();
    const toForm = () => publish(this.#topic?.name ?? '');
    const button = h('button', { type: 'button', onclick: toForm }, 'Publish to this topic');
    this.#fillPlotArea();
    const actions = h('div', { class: 'buttons' }, button);
    this.element = h('div', {}, this.#facts, this.#kind, this.#value, this.#plotArea, actions);
  }

  #newPlot() {
    const format = (/** @type {number} */ value) => quantity(value);
    return new Plot({
      title: 'Plot',
      about: 'Values of this topic',
      format,
      fromZero: false,
      signal: this.#signal,
    });
  }

  #fillPlotArea() {
    fill(this.#plotArea, field('Field', this.#fieldSelect), this.#plot.element);
  }

  /** @param {Topic | undefined} topic */
  show(topic) {
    this.#topic = topic;
    this.#samples.clear();
    this.#fieldSelect.replaceChildren();
    this.#plotArea.hidden = true;
    if (topic !== undefined && topic.length <= topic.value.length) this.#sample(topic.value, topic.at);
    this.refresh();
  }

  /**
   * Takes a publication to any topic.
   * @param {import('../elbus.js').Frame} frame
   * @param {number} now
   */
  add(frame, now) {
    if (this.#topic === undefined || frame.topic !== this.#topic.name) return;
    this.#sample(frame.payload, now);
  }

  /**
   * @param {Uint8Array} payload
   * @param {number} now
   */
  #sample(payload, now) {
    const [first] = this.#samples.values();
    if (payload.length > MAX_SEARCHED || (first !== undefined && !first.isDue(now))) return;
    for (const [path, number] of numbersIn(payload)) {
      const samples = this.#samples.get(path) ?? this.#addField(path);
      samples?.add(now, number);
    }
  }

  /** @param {string} path */
  #addField(path) {
    if (this.#samples.size >= MAX_FIELDS) return undefined;
    const samples = new Samples();
    this.#samples.set(path, samples);
    this.#fieldSelect.append(h('option', { value: path }, path === '' ? 'the value' : path));
    return samples;
  }

  /** Shows the current values. */
  refresh() {
    const topic = this.#topic;
    if (topic === undefined) return;
    const isCut = topic.length > topic.value.length;
    fill(
      this.#facts,
      definitions([
        ['Topic', busText(topic.name, 1024)],
        ['Sender', busText(topic.sender)],
        ['Rate', `${quantity(topic.rate)} /s`],
        ['Received', `${count(topic.total)}, the last at ${clock(topic.at)}`],
        ['Size', bytes(topic.length) + (isCut ? `; the first ${bytes(topic.value.length)} are shown` : '')],
      ]),
    );
    const shown = showBlock(topic.value, this.format);
    setText(this.#kind, `Last value (${shown.format})`);
    setText(this.#value, shown.text === '' ? '(no payload)' : shown.text);
    this.#showPlot();
  }

  #showPlot() {
    const samples = this.#samples.get(this.#fieldSelect.value);
    this.#plotArea.hidden = samples === undefined;
    if (samples === undefined) return;
    const { times, values } = samples;
    const to = Date.now();
    const from = Math.min(times[0] ?? to, to - LEAST_RANGE);
    const name = visible(this.#fieldSelect.value, 60);
    this.#plot.set({ times, from, to, series: [{ name, values }] });
  }
}
