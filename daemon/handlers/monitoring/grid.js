// Nodes by time: one canvas, so that a thousand nodes cost as little as ten.

const SPAN = 600, STEP = 2;
const SCALES = {
  light: [[233, 238, 243], [158, 202, 225], [49, 130, 189], [8, 48, 107]],
  dark: [[33, 42, 51], [32, 76, 117], [63, 151, 211], [205, 236, 255]],
};
const dark = matchMedia('(prefers-color-scheme: dark)');

/** What is drawn: samples by node, and where the cells are. */
const grid = { history: new Map(), nodes: [], now: 0, metric: 'cpu', most: 1, shape: null, cursor: null };

/** Adds the samples that are new, and forgets what is older than the grid. */
function remember(nodes, now) {
  grid.now = Math.floor(now / 1000 / STEP) * STEP;
  grid.nodes = nodes;
  for (const { node, samples } of nodes) {
    const known = grid.history.get(node) || [];
    const last = known.length ? known[known.length - 1][0] : 0;
    known.push(...samples.filter(sample => sample[0] > last));
    grid.history.set(node, known.filter(sample => sample[0] > grid.now - SPAN - STEP));
  }
}

function colour(share) {
  const stops = SCALES[dark.matches ? 'dark' : 'light'];
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2), part = at - low;
  return `rgb(${stops[low].map((c, i) => Math.round(c + (stops[low + 1][i] - c) * part))})`;
}

const share = sample => grid.metric === 'cpu' ? sample[1] / 1000 : sample[2] / grid.most;

/** Rows and columns that fit. Row 0 is the mean of all nodes. */
function shape(width) {
  const rows = grid.nodes.length;
  const height = rows <= 16 ? 18 : rows <= 60 ? 12 : rows <= 250 ? 5 : 2;
  const seconds = [2, 4, 6, 10, 20, 30].find(s => SPAN / s * 4 <= width) || 30;
  return { rows, height, gap: height >= 5 ? 1 : 0, top: 26, seconds, columns: SPAN / seconds, width };
}

/** Means by column, undefined where there is no sample. */
function cells(samples, { columns, seconds }) {
  const sums = new Array(columns), counts = new Array(columns).fill(0);
  for (const sample of samples) {
    const column = columns - 1 - Math.floor((grid.now - sample[0]) / seconds);
    if (column < 0 || column >= columns) continue;
    sums[column] = (sums[column] || 0) + share(sample);
    counts[column]++;
  }
  return sums.map((sum, column) => sum / counts[column]);
}

/** Fine diagonals: no sample. They differ from any colour by shape. */
function hatch(context, scale) {
  const tile = document.createElement('canvas');
  tile.width = tile.height = 8 * scale;
  const pen = tile.getContext('2d');
  pen.scale(scale, scale);
  pen.strokeStyle = dark.matches ? '#38424d' : '#d9dee3';
  pen.lineWidth = 1;
  for (const x of [-8, 0, 8]) { pen.moveTo(x, 8); pen.lineTo(x + 8, 0); }
  pen.stroke();
  return context.createPattern(tile, 'repeat');
}

function sized(canvas, width, height) {
  const scale = devicePixelRatio || 1;
  canvas.style.height = height + 'px';
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext('2d');
  return { context, scale };
}

function drawGrid() {
  const canvas = of('grid-cells'), s = grid.shape = shape(canvas.clientWidth);
  const { context, scale } = sized(canvas, s.width, s.top + s.rows * s.height);
  const all = [...grid.history.values()].flat();
  grid.most = Math.max(1, ...[0].concat(all.length < 50000 ? all.map(sample => sample[2]) : [8]));
  const none = hatch(context, scale);
  const edge = column => Math.round(column * s.width / s.columns * scale);
  const row = (values, y, height) => values.forEach((value, column) => {
    const left = edge(column), gap = s.columns * 5 <= s.width ? scale : 0;
    context.fillStyle = value === undefined ? none : colour(value);
    context.fillRect(left, y * scale, edge(column + 1) - left - gap, height * scale);
  });
  const rows = grid.nodes.map(({ node }) => [...cells(grid.history.get(node) || [], s)]);
  const mean = Array.from({ length: s.columns }, (_, column) => {
    const known = rows.map(values => values[column]).filter(value => value !== undefined);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : undefined;
  });
  row(mean, 0, 20);
  rows.forEach((values, at) => row(Array.from(values), s.top + at * s.height, s.height - s.gap));
  if (grid.cursor) drawCursor(context, scale, s);
  drawLegend();
}

function drawCursor(context, scale, s) {
  const { row, column } = grid.cursor, width = s.width / s.columns;
  context.strokeStyle = getComputedStyle(document.body).color;
  context.lineWidth = 1.5 * scale;
  const [y, height] = row < 0 ? [0, 20] : [s.top + row * s.height, s.height - s.gap];
  context.strokeRect(column * width * scale, y * scale, width * scale, height * scale);
}

function drawLegend() {
  const scaleBar = of('legend-scale').getContext('2d');
  for (let x = 0; x < 120; x++) { scaleBar.fillStyle = colour(x / 119); scaleBar.fillRect(x, 0, 1, 10); }
  const none = of('legend-none').getContext('2d');
  none.clearRect(0, 0, 16, 10);
  none.fillStyle = hatch(none, 1);
  none.fillRect(0, 0, 16, 10);
  say(of('legend-most'), grid.metric === 'cpu' ? '100 % CPU' : grid.most + (grid.most === 1 ? ' task' : ' tasks'));
}

/** Names beside the rows; of many low rows only some. */
function labelGrid() {
  const s = grid.shape, list = of('grid-labels');
  const every = s.height >= 12 ? 1 : s.height >= 5 ? 4 : 50;
  const shown = grid.nodes.filter((_, at) => at % every === 0);
  while (list.children.length > shown.length + 1) list.lastChild.remove();
  while (list.children.length < shown.length + 1) list.append(make('li', '', make('b'), make('span', 'address')));
  [...list.children].forEach((item, at) => {
    const node = shown[at - 1];
    item.style.height = (node ? s.height * every : s.top) + 'px';
    item.style.alignItems = node && every > 1 ? 'flex-start' : 'center';
    item.className = node && (node.state === 'down' || node.state === 'refuses') ? 'down' : '';
    say(item.firstChild, node ? String(node.node) : 'all');
    say(item.lastChild, node && every === 1 ? node.address : '');
  });
}

/** Tells what is under the cursor. */
function readCell() {
  const out = of('grid-readout');
  if (!grid.cursor) { say(out, '\u00a0'); return; }
  const { row, column } = grid.cursor, s = grid.shape;
  const from = grid.now - (s.columns - column) * s.seconds;
  const within = sample => sample[0] > from && sample[0] <= from + s.seconds;
  const chosen = row < 0 ? grid.nodes : [grid.nodes[row]];
  const samples = chosen.flatMap(({ node }) => (grid.history.get(node) || []).filter(within));
  const name = row < 0 ? 'all nodes' : 'node ' + grid.nodes[row].node;
  const at = clock((from + s.seconds) * 1000);
  if (!samples.length) { say(out, `${name}, ${at}: no sample`); return; }
  const mean = field => samples.reduce((sum, sample) => sum + sample[field], 0) / samples.length;
  const running = row < 0 ? mean(2) * chosen.length : mean(2);
  say(out, `${name}, ${at}: CPU ${Math.round(mean(1) / 10)} %, ${Math.round(running)} running, ` +
    `disk ${rate(mean(3))} read, ${rate(mean(4))} written, network ${rate(mean(5))} in, ${rate(mean(6))} out`);
}

function moveCursor(row, column, spoken) {
  const s = grid.shape;
  if (!s || !grid.nodes.length) return;
  const clamp = (n, low, high) => Math.min(Math.max(n, low), high);
  grid.cursor = { row: clamp(row, -1, s.rows - 1), column: clamp(column, 0, s.columns - 1) };
  of('grid-readout').setAttribute('aria-live', spoken ? 'polite' : 'off');
  drawGrid();
  readCell();
}

function watchGrid() {
  const canvas = of('grid-cells');
  canvas.addEventListener('pointermove', event => {
    const s = grid.shape;
    if (!s) return;
    const row = event.offsetY < s.top ? -1 : Math.floor((event.offsetY - s.top) / s.height);
    moveCursor(row, Math.floor(event.offsetX / s.width * s.columns), false);
  });
  const leave = () => { grid.cursor = null; drawGrid(); readCell(); };
  canvas.addEventListener('pointerleave', leave);
  canvas.addEventListener('blur', leave);
  canvas.addEventListener('keydown', event => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key];
    if (!move || !grid.shape) return;
    event.preventDefault();
    const from = grid.cursor || { row: -1, column: grid.shape.columns };
    moveCursor(from.row + move[0], from.column + move[1], true);
  });
  document.querySelectorAll('input[name=metric]').forEach(input => input.addEventListener('change', () => {
    grid.metric = input.value;
    drawGrid();
  }));
  const redraw = () => { if (grid.nodes.length) { drawGrid(); labelGrid(); } };
  dark.addEventListener('change', redraw);
  new ResizeObserver(() => { if (grid.shape && of('grid-cells').clientWidth !== grid.shape.width) redraw(); }).observe(canvas);
}
