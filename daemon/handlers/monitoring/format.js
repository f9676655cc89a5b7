// Numbers for people, and elements. What comes from users becomes text here, and never HTML.

const count = n => n.toLocaleString('en');

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit++; }
  return (unit && n < 100 ? n.toFixed(1) : Math.round(n)) + ' ' + units[unit];
}

const rate = n => n ? bytes(n) + '/s' : '0';

function duration(seconds) {
  if (seconds < 10) return seconds.toFixed(1) + ' s';
  const s = Math.round(seconds), two = n => String(n).padStart(2, '0');
  if (s < 60) return s + ' s';
  if (s < 3600) return Math.floor(s / 60) + ' min ' + two(s % 60) + ' s';
  return Math.floor(s / 3600) + ' h ' + two(Math.floor(s % 3600 / 60)) + ' min';
}

const clock = ms => new Date(ms).toLocaleTimeString('en-GB');

const of = id => document.getElementById(id);

/** An element of class `name`, holding text or other elements. */
function make(tag, name, ...content) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...content);
  return element;
}

/** Sets the text, and touches the document only where it changes. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function set(element, name, value) {
  if (element.dataset[name] !== String(value)) element.dataset[name] = value;
}
