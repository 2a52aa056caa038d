// Flows between clients: reads web.map, and places senders, receivers and subscribers in columns so that few
// lines cross.

import { toNumber } from '../format/numbers.js';

/** Names in one column. */
const MAX_NAMES = 50;
const MAX_EDGES = 2000;
const PASSES = 6;

/** @typedef {'message' | 'topic' | 'rpc'} FlowKind */
/**
 * A flow; `topic` is one of its topics, if `to` stands for several.
 * @typedef {object} Flow
 * @property {string} from
 * @property {string} to
 * @property {FlowKind} kind
 * @property {number} messages
 * @property {number} bytes
 * @property {string} topic
 */
/** Names of the subscribers of topics, by what flows are to. @typedef {Map<string, string[]>} Subscribers */
/**
 * A line from a name to another one. A subscription has no kind of flow.
 * @typedef {{ kind: FlowKind | 'subscription', messages: number, from: FlowNode, to: FlowNode }} FlowLink
 */
/**
 * A name in a column.
 * @typedef {{ key: string, name: string, isTopic: boolean, messages: number, row: number }} FlowNode
 */
/**
 * @typedef {object} FlowLayout
 * @property {FlowNode[]} senders In order from the top.
 * @property {FlowNode[]} receivers Receivers and topics.
 * @property {FlowNode[]} subscribers
 * @property {FlowLink[]} links
 * @property {number} omitted Flows of names that are left out.
 */

/**
 * Reads an answer of `web.map`.
 * @param {any} answer
 * @returns {Flow[]}
 */
export function readFlows(answer) {
  const edges = Array.isArray(answer?.edges) ? answer.edges : [];
  return edges
    .filter((/** @type {any} */ edge) => typeof edge?.from === 'string' && typeof edge?.to === 'string')
    .map((/** @type {any} */ { from, to, kind, messages, bytes, topic }) => ({
      from,
      to,
      kind: kind === 'topic' || kind === 'rpc' ? kind : 'message',
      messages: toNumber(messages),
      bytes: toNumber(bytes),
      topic: typeof topic === 'string' ? topic : to,
    }))
    .sort((/** @type {Flow} */ a, /** @type {Flow} */ b) => b.messages - a.messages)
    .slice(0, MAX_EDGES);
}

/**
 * @param {Flow[]} flows
 * @param {Subscribers} subscribers
 * @returns {FlowLayout}
 */
export function layOut(flows, subscribers = new Map()) {
  const senders = busiest(flows, (flow) => ({ key: flow.from, name: flow.from, isTopic: false }));
  const receivers = busiest(flows, (flow) => {
    const isTopic = flow.kind === 'topic';
    return { key: keyOfReceiver(flow), name: flow.to, isTopic };
  });
  /** @type {FlowLink[]} */
  const flowLinks = [];
  for (const flow of flows) {
    const from = senders.get(flow.from);
    const to = receivers.get(keyOfReceiver(flow));
    if (from !== undefined && to !== undefined)
      flowLinks.push({ kind: flow.kind, messages: flow.messages, from, to });
  }
  // names without a link belong to one that is left out
  const [left, middle] = [[...senders.values()], [...receivers.values()]].map((column) =>
    column.filter((node) => flowLinks.some((link) => link.from === node || link.to === node)),
  );
  const subscriptions = middle
    .filter((topic) => topic.isTopic)
    .flatMap((topic) => (subscribers.get(topic.name) ?? []).map((name) => ({ topic, name })));
  const names = busiest(
    subscriptions.map(({ topic, name }) => ({ to: name, messages: topic.messages })),
    ({ to }) => ({ key: to, name: to, isTopic: false }),
  );
  /** @type {FlowLink[]} */
  const subscriptionLinks = [];
  for (const { topic, name } of subscriptions) {
    const to = names.get(name);
    if (to !== undefined)
      subscriptionLinks.push({ kind: 'subscription', messages: topic.messages, from: topic, to });
  }
  const right = [...names.values()];
  number(left);
  for (let pass = 0; pass < PASSES; pass += 1) {
    order(middle, flowLinks, 'to', 'from');
    order(left, flowLinks, 'from', 'to');
  }
  order(right, subscriptionLinks, 'to', 'from');
  return {
    senders: left,
    receivers: middle,
    subscribers: right,
    links: [...flowLinks, ...subscriptionLinks],
    omitted: flows.length - flowLinks.length,
  };
}

/** @param {Flow} flow */
function keyOfReceiver(flow) {
  return `${flow.kind === 'topic' ? 'topic' : 'client'} ${flow.to}`;
}

/**
 * Returns the names with most messages by their key.
 * @template {{ messages: number }} F
 * @param {F[]} flows
 * @param {(flow: F) => { key: string, name: string, isTopic: boolean }} nodeOf
 * @returns {Map<string, FlowNode>}
 */
function busiest(flows, nodeOf) {
  /** @type {Map<string, FlowNode>} */
  const nodes = new Map();
  for (const flow of flows) {
    const { key, ...node } = nodeOf(flow);
    const found = nodes.get(key) ?? { key, ...node, messages: 0, row: 0 };
    found.messages += flow.messages;
    nodes.set(key, found);
  }
  const sorted = [...nodes.entries()].sort(([, a], [, b]) => b.messages - a.messages);
  return new Map(sorted.slice(0, MAX_NAMES));
}

/** @param {FlowNode[]} nodes */
function number(nodes) {
  nodes.forEach((node, row) => {
    node.row = row;
  });
}

/**
 * Sorts a column by the mean position of what its names are linked with.
 * @param {FlowNode[]} nodes
 * @param {FlowLayout['links']} links
 * @param {'from' | 'to'} own
 * @param {'from' | 'to'} other
 */
function order(nodes, links, own, other) {
  const sums = new Map(nodes.map((node) => [node, { sum: 0, weight: 0 }]));
  for (const link of links) {
    const entry = sums.get(link[own]);
    if (entry === undefined) continue;
    const weight = 1 + Math.log10(1 + link.messages);
    entry.sum += link[other].row * weight;
    entry.weight += weight;
  }
  const position = (/** @type {FlowNode} */ node) => {
    const { sum, weight } = sums.get(node) ?? { sum: 0, weight: 0 };
    return weight === 0 ? 0 : sum / weight;
  };
  nodes.sort((a, b) => position(a) - position(b) || (a.name < b.name ? -1 : 1));
  number(nodes);
}
