// The page itself: fetch, show, and again two seconds later, whatever happens.

const EVERY = 2000, TIMEOUT = 8000, ALL = 300, RECENT = 15;
const meta = name => document.querySelector(`meta[name=${name}]`).content;
const page = { secret: decodeURIComponent(location.hash.slice(1)), fetched: 0, since: Date.now(), timer: 0, chosen: false };

const COLUMNS = [
  ['state', 'state'], ['cpu', 'CPU'], ['disk_read', 'disk read'], ['disk_written', 'disk written'], ['net_in', 'net in'],
  ['net_out', 'net out'], ['running', 'tasks'], ['keys', 'keys'], ['bytes', 'stored'], ['free', 'free'],
];

function makeNode(node) {
  const row = make('tr');
  row.id = 'node-' + node.node;
  const head = make('th', '', make('b', '', String(node.node)), node.address);
  head.scope = 'row';
  row.append(head, ...COLUMNS.map(([field, label]) => {
    const cell = make('td');
    cell.dataset.field = field;
    cell.dataset.label = label;
    return cell;
  }));
  return row;
}

function fillNode(row, node) {
  const { health, usage } = node, sample = node.samples[node.samples.length - 1];
  const or = (known, value) => known ? value() : '–';
  set(row, 'state', node.state);
  row.title = node.why || '';
  const marks = { up: '', full: '▲ ', down: '✕ ', refuses: '✕ ' };
  const texts = [
    marks[node.state] + node.state, or(sample, () => Math.round(sample[1] / 10) + ' %'), or(sample, () => rate(sample[3])),
    or(sample, () => rate(sample[4])), or(sample, () => rate(sample[5])), or(sample, () => rate(sample[6])),
    or(health, () => count(health.running_tasks)), or(usage, () => count(usage.keys)), or(usage, () => bytes(usage.bytes)),
    or(health, () => bytes(health.free_bytes)),
  ];
  texts.forEach((text, at) => say(row.children[at + 1], text));
}

function showNodes(nodes) {
  const rows = of('nodes-rows');
  while (rows.children.length > nodes.length) rows.lastChild.remove();
  nodes.forEach((node, at) => {
    if (!rows.children[at]) rows.append(makeNode(node));
    fillNode(rows.children[at], node);
  });
  const up = nodes.filter(node => node.health).length;
  say(of('nodes-count'), up === nodes.length ? `${up}, all up` : `${up} of ${nodes.length} up`);
}

function showSummary(nodes, now) {
  const sum = read => nodes.reduce((all, node) => all + (read(node) || 0), 0);
  const counted = nodes.map(node => node.usage && node.usage.at).filter(Boolean);
  const up = nodes.filter(node => node.health).length, running = sum(node => node.health && node.health.running_tasks);
  const keys = sum(node => node.usage && node.usage.keys), size = sum(node => node.usage && node.usage.bytes);
  const held = counted.length && counted.length === up ? `, ${count(keys)} keys, ${bytes(size)}` : '';
  say(of('summary'), `${up} of ${nodes.length} nodes up, ${count(running)} tasks running${held}`);
  const oldest = duration(Math.max(now - Math.min(...counted), 0) / 1000);
  say(of('counted'), counted.length ? `Keys were last counted ${oldest} ago.` : 'Keys have not been counted yet.');
  document.title = (running ? `▶ ${running} ` : '') + 's4';
  const busy = nodes.filter(node => node.health && node.health.running_tasks > 0).length;
  of('grid-cells').setAttribute('aria-label',
    `Activity by node and time. Now ${busy} of ${nodes.length} nodes run tasks. Arrow keys read single cells.`);
}

/** On one machine all nodes have one CPU: there, running tasks tell more. */
function chooseMetric(nodes) {
  if (page.chosen) return;
  page.chosen = true;
  const hosts = new Set(nodes.map(node => node.address.replace(/:\d+$/, '')));
  if (nodes.length > 1 && hosts.size === 1) document.querySelector('input[name=metric][value=running]').click();
}

function show(view) {
  remember(view.nodes, view.now);
  chooseMetric(view.nodes);
  drawGrid();
  labelGrid();
  readCell();
  showNodes(view.nodes);
  showSummary(view.nodes, view.now);
  showCrowded(of('crowded'), view.crowded);
  showJobs(view);
  // What was drawn, for those who read the page by program.
  document.body.dataset.view = view.now;
}

function connection(state, text) {
  set(of('connection'), 'state', state);
  say(of('connection'), text);
  document.body.classList.toggle('stale', state !== 'connected');
}

async function refused(response) {
  const error = await response.json().catch(() => ({ message: 'HTTP status ' + response.status }));
  if (response.status === 403 && meta('s4-secret')) {
    of('secret').hidden = false;
    say(of('secret-wrong'), page.secret ? 'That is not the secret.' : '');
    connection('refused', page.secret ? 'the secret is wrong' : 'the secret is missing');
  } else {
    const advice = response.status === 412 ? '; the node list has changed: reload the page' : '';
    connection('refused', error.message + advice);
  }
}

function ask(path) {
  const headers = { 's4-cluster': meta('s4-cluster') };
  if (page.secret) headers['s4-secret'] = page.secret;
  return fetch(path, { headers, signal: AbortSignal.timeout(TIMEOUT), cache: 'no-store' });
}

async function fetchView() {
  const samples = Date.now() - page.fetched < (RECENT - 5) * 2000 ? RECENT : ALL;
  const response = await ask('/v1/watch?samples=' + samples);
  if (!response.ok) return refused(response);
  const view = await response.json();
  page.fetched = page.since = Date.now();
  of('secret').hidden = true;
  connection('connected', 'connected');
  show(view);
}

async function turn() {
  clearTimeout(page.timer);
  try {
    if (meta('s4-secret') && !page.secret) {
      of('secret').hidden = false;
      connection('refused', 'the secret is missing');
    } else if (!document.hidden) {
      await fetchView();
    }
  } catch (error) {
    connection('lost', `not connected since ${clock(page.since)}, trying again`);
    if (!(error instanceof TypeError) && error.name !== 'TimeoutError') console.error(error);
  }
  clearTimeout(page.timer);
  page.timer = setTimeout(turn, EVERY);
}

of('secret').addEventListener('submit', event => {
  event.preventDefault();
  page.secret = of('secret-field').value.trim();
  turn();
});
document.addEventListener('visibilitychange', () => { if (!document.hidden) turn(); });
watchGrid();
turn();
