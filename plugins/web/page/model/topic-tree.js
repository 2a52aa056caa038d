// The topics that were seen, as a tree, with rates and last values. Bounded in topics, depth and bytes.

/** Topics that are kept; beyond that those without a publication for longest are dropped. */
export const MAX_TOPICS = 5000;
/** Levels of a topic that become levels of the tree; further ones stay together. */
const MAX_LEVELS = 16;
/** Characters of a topic that is kept; longer ones are counted only. */
const MAX_TOPIC = 1024;
/** Bytes of a value that are kept: of all topics, and of the selected one. */
const MAX_VALUE = 1024;
const MAX_SELECTED_VALUE = 64 * 1024;
/** Dropped at once when the limit is reached. */
const DROPPED = MAX_TOPICS / 10;

/**
 * A level of the tree.
 * @typedef {object} TopicNode
 * @property {string} key Unique in the tree.
 * @property {string} segment
 * @property {number} level From 1.
 * @property {TopicNode | undefined} parent
 * @property {Map<string, TopicNode>} children
 * @property {boolean} isExpanded
 * @property {Topic | undefined} topic
 * @property {number} rate Of all topics below, per second.
 */

/**
 * The last publication to a topic.
 * @typedef {object} Topic
 * @property {string} name
 * @property {Uint8Array} value The first bytes.
 * @property {number} length Of the whole payload.
 * @property {string} sender
 * @property {number} at
 * @property {number} received Since the last calculation of rates.
 * @property {number} total
 * @property {number} rate
 */

/** The tree. */
export class TopicTree {
  /** @type {Map<string, TopicNode>} */
  #byTopic = new Map();
  #root = newNode('', '', 0, undefined);
  #selected = '';
  #tickAt = performance.now();
  /** Publications to topics that are too long to be kept. */
  ignored = 0;
  /** Topics that were dropped to keep the limit. */
  dropped = 0;

  /** Publications per second, of all topics. */
  get rate() {
    return this.#root.rate;
  }

  get size() {
    return this.#byTopic.size;
  }

  /** @param {string} name */
  get(name) {
    return this.#byTopic.get(name)?.topic;
  }

  /**
   * Keeps more of the value of one topic.
   * @param {string} name
   */
  select(name) {
    this.#selected = name;
  }

  /**
   * Takes a publication.
   * @param {{ topic: string, payload: Uint8Array, sender: string }} frame
   * @param {number} now
   */
  add({ topic: name, payload, sender }, now) {
    if (name.length > MAX_TOPIC) {
      this.ignored += 1;
      return;
    }
    const topic = (this.#byTopic.get(name) ?? this.#insert(name)).topic;
    if (topic === undefined) return;
    topic.received += 1;
    topic.total += 1;
    topic.at = now;
    if (topic.sender !== sender) topic.sender = sender.slice(0, MAX_TOPIC);
    topic.length = payload.length;
    // a copy: the payload shares memory with other frames
    topic.value = payload.slice(0, name === this.#selected ? MAX_SELECTED_VALUE : MAX_VALUE);
  }

  /** @param {string} name */
  #insert(name) {
    if (this.#byTopic.size >= MAX_TOPICS) this.#dropOldest();
    let node = this.#root;
    for (const segment of segmentsOf(name)) {
      let next = node.children.get(segment);
      if (next === undefined) {
        const key = node === this.#root ? `/${segment}` : `${node.key}/${segment}`;
        next = newNode(key, segment, node.level + 1, node);
        node.children.set(segment, next);
      }
      node = next;
    }
    const value = new Uint8Array();
    node.topic = {
      name,
      value,
      length: 0,
      sender: '',
      at: 0,
      received: 0,
      total: 0,
      rate: 0,
    };
    this.#byTopic.set(name, node);
    return node;
  }

  #dropOldest() {
    const oldest = [...this.#byTopic.values()].sort((a, b) => (a.topic?.at ?? 0) - (b.topic?.at ?? 0));
    for (const node of oldest.slice(0, DROPPED)) this.#remove(node);
    this.dropped += DROPPED;
  }

  /** @param {TopicNode} node */
  #remove(node) {
    this.#byTopic.delete(node.topic?.name ?? '');
    node.topic = undefined;
    /** @type {TopicNode | undefined} */
    let empty = node;
    while (empty?.parent !== undefined && empty.topic === undefined && empty.children.size === 0) {
      empty.parent.children.delete(empty.segment);
      empty = empty.parent;
    }
  }

  clear() {
    this.#byTopic.clear();
    this.#root.children.clear();
    this.ignored = 0;
    this.dropped = 0;
  }

  /**
   * Calculates the rates since the last call.
   * @param {number} now
   */
  tick(now) {
    const seconds = Math.max((now - this.#tickAt) / 1000, 0.001);
    this.#tickAt = now;
    this.#rateOf(this.#root, seconds);
  }

  /**
   * @param {TopicNode} node
   * @param {number} seconds
   * @returns {number}
   */
  #rateOf(node, seconds) {
    let sum = 0;
    const { topic } = node;
    if (topic !== undefined) {
      const measured = topic.received / seconds;
      topic.received = 0;
      // smoothed, and quickly 0 once nothing arrives
      topic.rate = topic.rate === 0 ? measured : topic.rate * 0.6 + measured * 0.4;
      if (topic.rate < 0.01) topic.rate = 0;
      sum += topic.rate;
    }
    for (const child of node.children.values()) sum += this.#rateOf(child, seconds);
    node.rate = sum;
    return sum;
  }

  /**
   * Returns the nodes that are visible, in order.
   * @param {(name: string) => boolean} accepts Topics that are shown.
   * @returns {TopicNode[]}
   */
  visibleNodes(accepts) {
    /** @type {TopicNode[]} */
    const found = [];
    const add = (/** @type {TopicNode} */ node) => {
      const start = found.length;
      found.push(node);
      let isWanted = node.topic !== undefined && accepts(node.topic.name);
      if (node.isExpanded) {
        for (const child of sorted(node.children)) if (add(child)) isWanted = true;
      } else if (!isWanted) isWanted = hasWanted(node, accepts);
      if (!isWanted) found.length = start;
      return isWanted;
    };
    for (const node of sorted(this.#root.children)) add(node);
    return found;
  }
}

/**
 * @param {TopicNode} node
 * @param {(name: string) => boolean} accepts
 * @returns {boolean}
 */
function hasWanted(node, accepts) {
  for (const child of node.children.values()) {
    if ((child.topic !== undefined && accepts(child.topic.name)) || hasWanted(child, accepts)) return true;
  }
  return false;
}

/** @param {Map<string, TopicNode>} children */
function sorted(children) {
  return [...children.values()].sort((a, b) => (a.segment < b.segment ? -1 : 1));
}

/**
 * @param {string} key
 * @param {string} segment
 * @param {number} level
 * @param {TopicNode | undefined} parent
 * @returns {TopicNode}
 */
function newNode(key, segment, level, parent) {
  return {
    key,
    segment,
    level,
    parent,
    children: new Map(),
    isExpanded: level < 3,
    topic: undefined,
    rate: 0,
  };
}

/** @param {string} name */
function segmentsOf(name) {
  const segments = name.split('/');
  if (segments.length <= MAX_LEVELS) return segments;
  return [...segments.slice(0, MAX_LEVELS - 1), segments.slice(MAX_LEVELS - 1).join('/')];
}
