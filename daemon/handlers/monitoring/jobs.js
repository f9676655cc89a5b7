// Jobs: one list item each, made once and then kept up to date, so that what a reader has opened stays open.

const MARKS = { planned: '○', running: '▶', done: '✓', failed: '✕', cancelled: '■', interrupted: '✕', unknown: '?' };
const FIELDS = ['done', 'failed', 'running'];
// Ended jobs that are shown whole; of older ones only the head, until a reader opens them.
const WHOLE = 5;

/** The job of the address, which a reader got from somebody else. */
const linked = new URLSearchParams(location.search).get('job');

const makeBar = () => make('div', 'bar', ...FIELDS.map(name => make('i', name)));

function fillBar(bar, progress) {
  FIELDS.forEach((name, at) => {
    const part = progress.tasks ? progress[name] / progress.tasks * 100 : 0;
    bar.children[at].style.width = part + '%';
    // One failure among thousands is still seen.
    bar.children[at].style.minWidth = name === 'failed' && part ? '5px' : '0';
  });
}

/** A warning that one node has most of something, if there is one. */
function showCrowded(place, crowded) {
  place.hidden = !crowded;
  if (!crowded) return;
  const { node, of: what, part, whole } = crowded;
  const amount = what === 'bytes' ? `${bytes(part)} of ${bytes(whole)}` : `${count(part)} of ${count(whole)} ${what}`;
  say(place, `node ${node} has ${amount}, more than twice its fair share: the basename of a key decides where it is`);
}

function makeJob(job) {
  const item = make('li');
  item.id = 'job-' + job.id;
  item.parts = {
    state: make('span', 'state'), time: make('span', 'time'), numbers: make('span', 'numbers'), bar: makeBar(),
    skew: make('div', 'hint'), nodes: make('ol', 'parts'), failures: make('ol'), failed: make('summary'), many: make('summary'),
  };
  const { state, time, numbers, bar, skew, nodes, failures, failed, many } = item.parts;
  bar.setAttribute('role', 'img');
  item.parts.byNode = make('details', 'by-node', many, nodes);
  item.parts.byFailure = make('details', 'failures', failed, failures);
  item.parts.byNode.addEventListener('toggle', () => fillParts(item));
  const where = make('button', 'where', `${job.kind}  ${job.indir} → ${job.outdir}`);
  where.addEventListener('click', () => { item.opened = item.classList.contains('folded'); fold(item, !item.opened); });
  // Without the secret, which is in the other part of the address.
  const link = make('a', 'id', job.id);
  link.href = '/?job=' + encodeURIComponent(job.id);
  link.title = 'The address of this job';
  // The page goes on, and the address can be copied.
  link.addEventListener('click', event => { event.preventDefault(); history.replaceState(null, '', link.href); });
  item.parts.where = where;
  item.append(
    make('div', 'job-head', state, where, link),
    bar, make('div', 'counts', numbers, time), make('code', 'cmd', job.cmd), skew, item.parts.byFailure, item.parts.byNode);
  return item;
}

function fillParts(item) {
  const { nodes, byNode } = item.parts;
  if (!byNode.open) return;
  const parts = item.job.parts;
  while (nodes.children.length > parts.length) nodes.lastChild.remove();
  while (nodes.children.length < parts.length) nodes.append(make('li', '', make('span'), makeBar(), make('span')));
  parts.forEach(([node, tasks, done, failed, running], at) => {
    const [name, bar, numbers] = nodes.children[at].children;
    say(name, 'node ' + node);
    fillBar(bar, { tasks, done, failed, running });
    say(numbers, `${count(done)} of ${count(tasks)}`);
  });
}

/** Failures of one kind: how many, some of their tasks, what may be the cause, and one stderr. */
function makeFailure(group, job) {
  const entry = make('li', '', make('span', 'reason', `${count(group.count)} of ${count(job.progress.tasks)} tasks: ${group.count > 1 ? group.kind : group.reason}`));
  const tasks = group.tasks.map(task => make('li', '', make('span', 'key', 's4://' + task.key), ` on node ${task.node}`));
  const more = group.count - group.tasks.length;
  if (more > 0) tasks.push(make('li', '', `and ${count(more)} more: s4 logs ${job.id} --failed`));
  entry.append(make('ul', '', ...tasks));
  if (group.hint) entry.append(make('div', 'hint', group.hint));
  if (group.stderr) entry.append(make('pre', 'stderr', group.stderr));
  return entry;
}

function fillFailures(item, job) {
  const { failures, failed, byFailure } = item.parts;
  const { groups, others } = job.failures;
  byFailure.hidden = job.progress.failed === 0;
  const shown = groups.reduce((sum, group) => sum + group.count, 0);
  // A node reads the record of many failures bit by bit.
  const unread = Math.max(0, job.progress.failed - shown - others);
  const rest = (others ? `, ${count(others)} of more kinds` : '') + (unread ? `, ${count(unread)} not read yet` : '');
  say(failed, `${count(job.progress.failed)} failed${rest}`);
  // What a reader has selected stays while nothing changes.
  const key = JSON.stringify(groups);
  if (item.shownFailures === key) return;
  item.shownFailures = key;
  const ordered = [...groups].sort((a, b) => b.count - a.count);
  failures.replaceChildren(...ordered.map(group => makeFailure(group, job)));
}

function times(job) {
  if (job.elapsed === null) return '';
  const read = job.progress.bytes_done, seconds = job.elapsed / 1000, left = job.seconds_left;
  return (job.started ? `from ${clock(job.started)}, ` : '') + duration(seconds) +
    (read && seconds > 0 ? `, ${rate(read / seconds)}` : '') +
    (left === null || left === undefined ? '' : `, about ${duration(left)} left`);
}

function fold(item, folded) {
  item.classList.toggle('folded', folded);
  item.parts.where.setAttribute('aria-expanded', String(!folded));
}

/** The ended share of a job that runs, in percent. */
const percent = ({ tasks, done, failed }) => tasks ? `${Math.floor((done + failed) / tasks * 100)} %, ` : '';

/** `absent`: the nodes that did not answer, whose part of the job is not known. */
function fillJob(item, job, absent) {
  item.job = job;
  const { tasks, done, failed, running, outputs } = job.progress;
  for (const [name, value] of Object.entries({ state: job.state, tasks, done, failed, running, outputs })) set(item, name, value);
  const parts = item.parts;
  say(parts.state, `${MARKS[job.state] || ''} ${job.state}`);
  const numbers = (job.state === 'running' ? percent(job.progress) : '') + `${count(done)} of ${count(tasks)} done` + (failed ? `, ${count(failed)} failed` : '') +
    (running ? `, ${count(running)} running` : '') + (job.done_before ? `, ${count(job.done_before)} done before` : '') +
    `, ${count(outputs)} ${outputs === 1 ? 'output' : 'outputs'}`;
  const told = numbers + (absent.length ? `; unknown: node ${absent.join(', ')}` : '');
  say(parts.numbers, told);
  if (parts.bar.getAttribute('aria-label') !== told) parts.bar.setAttribute('aria-label', told);
  say(parts.time, times(job));
  fillBar(parts.bar, job.progress);
  showCrowded(parts.skew, job.crowded);
  say(parts.many, `by node (${job.parts.length})`);
  fillParts(item);
  fillFailures(item, job);
}

function showLinked(item) {
  item.classList.add('linked');
  item.scrollIntoView({ block: 'center' });
}

/** The newest first. */
function showJobs({ jobs, nodes }) {
  const absent = nodes.filter(node => !node.health).map(node => node.node).slice(0, 20);
  const list = of('jobs-list'), ids = new Set(jobs.map(job => 'job-' + job.id));
  [...list.children].filter(item => !ids.has(item.id)).forEach(item => item.remove());
  let ended = 0;
  jobs.forEach((job, at) => {
    const known = of('job-' + job.id), item = known || makeJob(job);
    if (list.children[at] !== item) list.insertBefore(item, list.children[at] || null);
    fillJob(item, job, absent);
    const isOld = !['planned', 'running'].includes(job.state) && ++ended > WHOLE;
    if (item.opened === undefined) fold(item, isOld && job.id !== linked);
    if (!known && job.id === linked) showLinked(item);
  });
  of('jobs-none').hidden = jobs.length > 0;
  const running = jobs.filter(job => job.state === 'running').length;
  say(of('jobs-count'), jobs.length ? `${running} running, ${jobs.length} in all` : '');
}
