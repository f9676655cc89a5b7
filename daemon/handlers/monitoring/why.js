// What made a key: asked by name, and one step further back with each click on an input.

function inputButton(input) {
  const button = make('button', 'link', 's4://' + input.key);
  button.type = 'button';
  button.addEventListener('click', () => askWhy('s4://' + input.key));
  return make('li', '', button, ` ${sumText(input.checksum)}`);
}

/** A checksum is written as 16 hexadecimal digits and a length. */
function sumText(checksum) {
  const [sum, length] = checksum.split(' ');
  return `${bytes(Number(length))}, XXH3 ${sum}`;
}

function showWhy(name, found) {
  const lines = [make('p', '', make('b', '', name), ` ${sumText(found.checksum)}`)];
  if (!found.mark) {
    lines.push(make('p', '', 'No map made it.'));
  } else if (!found.task) {
    lines.push(make('p', '', 'A map made it, of which there is no record any more.'));
  } else {
    const { job, inputs, count: all } = found.task;
    const more = all - inputs.length;
    lines.push(
      make('p', '', `Made by ${job.kind} s4://${job.indir}/ → s4://${job.outdir}/, job ${job.id}, from ${count(all)} ${all === 1 ? 'input' : 'inputs'}:`),
      make('code', 'cmd', typeof job.cmd === 'string' ? job.cmd : new TextDecoder().decode(new Uint8Array(job.cmd))),
      make('ul', '', ...inputs.map(inputButton)));
    if (more > 0) lines.push(make('p', 'quiet', `and ${count(more)} more: s4 why --all ${name}`));
  }
  of('why-answer').replaceChildren(...lines);
}

async function askWhy(name) {
  of('why-key').value = name;
  const answer = of('why-answer');
  try {
    const path = name.trim().replace(/^s4:\/\//, '').split('/').map(encodeURIComponent).join('/');
    const response = await ask('/v1/why/' + path);
    if (!response.ok) throw new Error((await response.json()).message);
    showWhy(name.trim(), await response.json());
  } catch (error) {
    answer.replaceChildren(make('p', '', error.message));
  }
  answer.dataset.key = name;
}

of('why').addEventListener('submit', event => {
  event.preventDefault();
  askWhy(of('why-key').value);
});
